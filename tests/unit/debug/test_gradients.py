"""Gradients of every weight: sizes, updates, and those that never come."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image
from torch import nn

from muybridge.debug import GradientWatch
from muybridge.debug.gradients import block_of
from muybridge.errors import ConfigError


def train(net, x, steps: int = 3, rate: float = 0.1, optimizers: int = 1) -> GradientWatch:
    weights = list(net.parameters())
    parts = [weights[index::optimizers] for index in range(optimizers)]
    made = [torch.optim.SGD(part, lr=rate) for part in parts]
    with GradientWatch(net) as watch:
        for _ in range(steps):
            net(x, torch.ones(())).square().sum().backward()
            nn.utils.clip_grad_norm_(weights, 1e-3)
            for optimizer in made:
                optimizer.step()
                optimizer.zero_grad()
    return watch


def test_norms_are_those_before_clipping(net, x):
    net(x, torch.ones(())).square().sum().backward()
    expected = {name: float(weight.grad.norm()) for name, weight in net.named_parameters()}
    net.zero_grad()
    report = train(net, x, steps=1).report()
    assert report.steps == 1
    assert {w.name: w.norms[0] for w in report.weights} == pytest.approx(expected)
    blocks = report.block_norms()
    assert list(blocks) == ["blocks.0", "blocks.1", "blocks.2", "head"]
    head = math.hypot(expected["head.weight"], expected["head.bias"])
    assert blocks["head"] == pytest.approx([head])


@pytest.mark.parametrize("optimizers", [1, 2])
def test_updates_are_a_share_of_the_weight(net, x, optimizers):
    before = net.head.weight.detach().clone()
    report = train(net, x, steps=1, optimizers=optimizers).report()
    change = net.head.weight.detach() - before
    weight = next(each for each in report.weights if each.name == "head.weight")
    assert weight.update_ratios == pytest.approx([float(change.norm() / before.norm())])
    assert len(train(net, x, steps=4, optimizers=optimizers).report().weights[0].norms) == 4


def test_a_weight_without_effect_is_dead(net, x):
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.unused = nn.Linear(2, 2)
            self.gate = nn.Parameter(torch.zeros(()))
            self.behind = nn.Parameter(torch.ones(()))

        def forward(self, x, timestep):
            return self.net(x, timestep) + (self.gate * 0.0) * self.behind

    report = train(Unused(), x).report()
    assert report.named("dead") == ["gate", "behind", "unused.weight", "unused.bias"]
    assert "dead: gate, behind, unused.weight, unused.bias" in str(report)
    assert next(w for w in report.weights if w.name == "unused.bias").norms == [0.0] * 3


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1e-12, "vanishing"), (1e12, "exploding"), (float("nan"), "exploding")]
)
def test_vanishing_and_exploding_are_told(net, x, factor, verdict):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x, timestep):
            return self.net(x, timestep) * factor**0.5

    report = train(Scaled(), x, steps=1).report()
    assert len(report.named(verdict)) == len(report.weights)
    assert report.named("dead") == []


def test_without_an_optimizer_steps_are_ended_by_hand(net, x):
    with GradientWatch(net) as watch:
        for _ in range(2):
            net(x, torch.ones(())).sum().backward()
            watch.end_step()
    report = watch.report()
    assert report.steps == 2
    assert all(weight.update_ratios == [] for weight in report.weights)


def test_frozen_weights_are_left_out(net, x):
    net.blocks.requires_grad_(False)
    assert {w.name for w in train(net, x).report().weights} == {"head.weight", "head.bias"}
    net.requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        GradientWatch(net)


def test_training_is_the_same_and_nothing_stays(net, x):
    other = type(net)()
    other.load_state_dict(net.state_dict())
    train(net, x)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(3):
        other(x, torch.ones(())).square().sum().backward()
        nn.utils.clip_grad_norm_(list(other.parameters()), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert not any(weight._post_accumulate_grad_hooks for weight in net.parameters())
    with pytest.raises(RuntimeError, match="on the way"), GradientWatch(net):
        raise RuntimeError("on the way")
    assert not any(weight._post_accumulate_grad_hooks for weight in net.parameters())


def test_the_report_is_saved(net, x, tmp_path):
    with torch.no_grad():
        net.head.bias.zero_()  # an update of nothing: an infinite ratio
    json_path, png_path = train(net, x).report().save(tmp_path / "new")
    content = json.loads(json_path.read_text())
    assert content["steps"] == 3
    assert {each["name"] for each in content["weights"]} == {name for name, _ in net.named_parameters()}
    with Image.open(png_path) as picture:
        assert len(picture.convert("RGB").getcolors(100_000) or []) > 3
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["gradients.json", "gradients.png"]


def test_nothing_observed_is_an_error(net):
    with GradientWatch(net) as watch:
        pass
    with pytest.raises(ConfigError, match="No step"):
        watch.report()


def test_blocks_are_numbered_parts():
    assert block_of("unet.down_blocks.0.resnets.1.conv1.weight") == "unet.down_blocks.0"
    assert block_of("unet.conv_in.weight") == "unet.conv_in"
    assert block_of("scale") == "scale"
