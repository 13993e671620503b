"""Where the time goes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from muybridge.debug import StageProfile
from muybridge.errors import ConfigError


class Clock:
    """Goes on only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


class Sleeper(nn.Module):
    """Takes its time, in itself and in a part."""

    def __init__(self, seconds: float, part: nn.Module | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.part = part

    def forward(self, x):
        CLOCK.now += self.seconds
        return x if self.part is None else self.part(x)


class Autoencoder(nn.Module):
    """Called by its parts, as VAEs are."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Sleeper(0.01)
        self.decoder = Sleeper(0.01)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_own_time_is_without_that_of_parts():
    net = Sleeper(0.02, Sleeper(0.08))
    with StageProfile(net, clock=CLOCK) as profile:
        net(torch.ones(1))
        net(torch.ones(1))
    report = profile.report()
    part, whole = report.top()
    assert [part.module, whole.module] == ["part", ""]
    assert (part.calls, whole.calls) == (2, 2)
    assert part.self_seconds == part.total_seconds == pytest.approx(0.16)
    assert whole.self_seconds == pytest.approx(0.04)
    assert whole.total_seconds == pytest.approx(0.2)
    assert list(report.stage_seconds) == ["forward"]
    assert report.stage_seconds["forward"] == pytest.approx(0.2)
    assert "part (Sleeper)" in str(report).splitlines()[1]


def test_each_stage_has_its_time_and_its_trace(tmp_path):
    parts = {"text_encoder": Sleeper(0.01), "unet": Sleeper(0.0, nn.Linear(4, 4)), "vae": Autoencoder()}
    vae = parts["vae"]
    assert isinstance(vae, Autoencoder)
    x = torch.ones(2, 4)
    with StageProfile(parts, tmp_path / "new", CLOCK) as profile:
        parts["text_encoder"](x)
        vae.encoder(x)
        parts["unet"](x)
        parts["unet"](x)
        vae.decoder(x)
        parts["text_encoder"](x)
    report = profile.report()
    assert list(report.stage_seconds) == ["text", "encode", "denoise", "decode"]
    assert report.stage_seconds == pytest.approx({"text": 0.02, "encode": 0.01, "denoise": 0.0, "decode": 0.01})
    stages = {module.module: module.stage for module in report.modules}
    assert stages["vae.encoder"] == "encode"
    assert stages["vae.decoder"] == "decode"
    assert stages["unet.part"] == "denoise"
    assert [len(paths) for paths in report.traces.values()] == [2, 1, 1, 1]
    assert report.traces["text"][1].name == "trace-text-2.json"
    events = json.loads(report.traces["denoise"][0].read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("unet.part (Linear)") == 2
    assert "aten::addmm" in names
    assert "text_encoder (Sleeper)" not in names
    assert json.loads(report.save(tmp_path)[0].read_text())["stage_seconds"].keys() == report.stage_seconds.keys()


def test_results_stay_the_same_and_errors_end_it(net, x, tmp_path):
    plain = net(x, torch.ones(()))
    with StageProfile(net, tmp_path):
        assert torch.equal(net(x, torch.ones(())), plain)
    profile = StageProfile(net, tmp_path)
    with pytest.raises(RuntimeError), profile:
        net(x[:, :3], torch.ones(()))
    assert not profile.active
    with pytest.raises(ConfigError, match="No module ran"):
        profile.report()
    with profile:  # the profiler is free again
        net(x, torch.ones(()))
    assert profile.report().modules


def test_the_report_waits_for_the_end(net):
    with StageProfile(net) as profile, pytest.raises(ConfigError, match="has ended"):
        profile.report()


def test_a_pipeline_that_computes_on_a_gpu_is_timed_there(net):
    class Offloaded:
        _execution_device = torch.device("cuda")
        components = {"unet": net}

    assert StageProfile(Offloaded())._cuda
    assert not StageProfile(net)._cuda
