"""Two runs compared: the first place where they differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from muybridge.debug import Probe, Recording
from muybridge.debug.recording import kept_values
from muybridge.errors import ConfigError, InputFileError
from muybridge.motion.attention import FeedForward

STEP = torch.tensor(5)


def record(net, x, pattern: str | list[str] = "*", **settings) -> Recording:
    with Probe(net, pattern, **settings) as probe, torch.no_grad():
        net(x, STEP)
        net(x * 2, STEP)
    return probe.recording


@pytest.mark.parametrize("full", [False, True])
def test_a_change_of_one_weight_is_found(net, x, full):
    before = record(net, x, full=full)
    assert before.first_divergence(record(net, x, full=full)) is None
    with torch.no_grad():
        net.blocks[1].second.weight[2, 3] += 1e-3
        # What the change does to the output, computed another way: channel 2 gets 1e-3 times channel 3 of the input.
        inner = torch.tanh(net.blocks[1].first(x + net.blocks[0](x)))[:, 3]

    found = before.first_divergence(record(net, x, full=full))

    assert found is not None
    assert (found.module, found.call, found.tensor, found.arose) == ("blocks.1.second", 0, "output", "inside")
    if full:
        assert found.absolute == pytest.approx(float(1e-3 * inner.abs().max()), rel=1e-3)
    else:
        assert found.absolute > 0
    assert "blocks.1.second (Linear), call 0, output" in str(found)


def test_a_change_between_modules_is_told_from_one_inside(net, x):
    before = record(net, x)
    net.blocks[2].divisor = 2.0
    found = before.first_divergence(record(net, x))
    assert found is not None
    assert (found.module, found.tensor, found.arose) == ("blocks.2.second", "input.0", "before")


@pytest.mark.parametrize("full", [False, True])
def test_small_differences_can_be_allowed(net, x, full):
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.norm = nn.LayerNorm(8)  # gives a mean of zero, which rounding changes by as much as there is

        def forward(self, x, timestep):
            return self.norm(self.net(x, timestep))

    normed = Normed()
    before = record(normed, x, full=full)
    with torch.no_grad():
        net.head.weight.mul_(1 + 1e-5)
    after = record(normed, x, full=full)
    assert before.first_divergence(after, tolerance=1e-4) is None
    found = before.first_divergence(after, tolerance=1e-7)
    assert found is not None
    assert found.relative == pytest.approx(1e-5, rel=0.5)


def test_values_are_kept_before_they_are_changed_in_place():
    class Grows(nn.Module):
        def forward(self, x):
            return x.mul_(3)

    net = nn.Sequential(Grows(), nn.ReLU(inplace=True))
    with Probe(net, "0", full=True) as probe:
        net(torch.tensor([1.0, -2.0]))
    module = probe.recording.modules[0]
    assert module.inputs[0].values.tolist() == [1.0, -2.0]
    assert module.outputs[0].values.tolist() == [3.0, -6.0]


@pytest.mark.parametrize("full", [False, True])
def test_a_recording_comes_back_from_files(net, x, full, tmp_path):
    recording = record(net.to(torch.bfloat16), x.bfloat16(), full=full)
    path = recording.save(tmp_path / "new" / "run.json")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["run.json", "run.safetensors"]
    again = Recording.load(path)
    assert again.full is full
    assert [m.module for m in again.modules] == [m.module for m in recording.modules]
    assert again.modules[0].outputs[0].statistics == recording.modules[0].outputs[0].statistics
    assert torch.equal(again.modules[0].outputs[0].values, recording.modules[0].outputs[0].values)
    assert again.first_divergence(recording) is None
    with torch.no_grad():
        net.blocks[0].first.bias[0] += 1
    found = again.first_divergence(record(net, x.bfloat16(), full=full))
    assert found is not None
    assert found.module == "blocks.0.first"


def test_kept_values_are_evenly_spread_in_tensors_of_any_size():
    assert kept_values(torch.arange(100.0), full=False, count=4).tolist() == [0, 33, 66, 99]
    assert kept_values(torch.arange(3.0), full=False).tolist() == [0, 1, 2]
    assert kept_values(torch.ones(1), full=False).tolist() == [1]
    assert kept_values(torch.ones(0), full=False).tolist() == []
    # float32 rounds the last index of this one to one that there is not.
    assert kept_values(torch.ones(1).expand(2**24 + 4), full=False).tolist() == [1] * 64


def test_patterns_choose(net, x):
    assert {m.module for m in record(net, x, "blocks.*.first").modules} == {f"blocks.{i}.first" for i in range(3)}
    several = record(net, x, ["head", "blocks.0"]).modules
    assert [(m.module, m.call) for m in several] == [("blocks.0", 0), ("head", 0), ("blocks.0", 1), ("head", 1)]
    assert [m.call for m in record(net, x, "head", calls=1).modules] == [0]
    with pytest.raises(ConfigError, match=r"No module matches 'blocks.1.secnd'.*blocks.1.second"):
        Probe(net, "blocks.1.secnd")
    with pytest.raises(ConfigError, match="calls"):
        Probe(net, calls=0)


def test_parts_of_several_networks_are_named_by_them(net, x):
    with Probe({"a": net, "b": nn.Linear(2, 2), "c": net}, "*head") as probe:
        net(x, STEP)
    assert [m.module for m in probe.recording.modules] == ["a.head"]


def test_what_a_faster_path_passes_over_is_silent_and_the_result_the_same():
    torch.manual_seed(0)
    feed_forward = FeedForward(16)
    x = torch.randn(64, 16)
    with torch.no_grad():
        plain = feed_forward(x)
        with Probe(feed_forward) as probe:
            watched = feed_forward(x)
    assert torch.equal(plain, watched)
    assert {m.module for m in probe.recording.modules} == {"", "net.0", "net.2"}
    assert probe.silent == ["net", "net.0.proj", "net.1"]


def test_infinities_and_nan_compare(net, x):
    with torch.no_grad():
        net.blocks[0].first.bias[0] = torch.inf
        net.head.bias[1] = torch.nan
    one = record(net, x, full=True)
    assert one.first_divergence(record(net, x, full=True)) is None
    with torch.no_grad():
        net.head.bias[1] = 0.0
    found = one.first_divergence(record(net, x, full=True))
    assert found is not None
    assert (found.module, found.absolute) == ("head", float("inf"))


def test_what_cannot_be_compared_is_said(net, x, tmp_path):
    one = record(net, x, "head")
    with pytest.raises(ConfigError, match=r"no module in common.*blocks\.0"):
        one.first_divergence(record(net, x, "blocks.0"))
    found = one.first_divergence(record(net, x[:2], "head"))
    assert found is not None
    assert found.problem == "[4, 8] here, [2, 8] there"
    with pytest.raises(InputFileError, match="no recording"):
        Recording.load(tmp_path / "none")
    one.save(tmp_path / "one")
    (tmp_path / "one.json").write_text('{"format": "else"}')
    with pytest.raises(InputFileError, match="is a else"):
        Recording.load(tmp_path / "one")


def test_an_error_inside_leaves_no_hook_and_what_was_seen(net, x):
    with pytest.raises(RuntimeError), Probe(net) as probe:
        net(torch.cat([x, x], dim=1), STEP)
    assert not probe.active
    assert probe.recording.modules == []


def test_a_caught_error_does_not_confuse_the_calls(net, x):
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x):
            try:
                self.net(x[:, :3], STEP)
            except RuntimeError:
                return self.net(x, STEP)
            raise AssertionError

    with Probe(Tries()) as probe:
        probe.target(x)  # pyright: ignore[reportCallIssue]
    names = [m.module for m in probe.recording.modules]
    assert names[-2:] == ["net", ""]
    assert names.count("net.head") == 1
