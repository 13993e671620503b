"""Tools by name around a loop that trains."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules import module as torch_module

from muybridge.debug import Recording
from muybridge.debug.training_tools import TOOL_NAMES, TrainingTools
from muybridge.demo.stages.image import MotionStage
from muybridge.errors import ConfigError, NonFiniteError
from muybridge.motion import MotionContext, TemporalConfig, TemporalMotionModule
from muybridge.motion.timestep_film import TimestepFilmConfig, TimestepFilmMotionModule
from muybridge.training.stages.stage import DebugTool
from muybridge.training.trainer import Trainer, TrainerConfig

TOOLS = ("anomaly", "attention", "gradients", "memory", "probe", "profile")


@pytest.fixture
def net(net):
    """The network, with a motion site behind its head."""

    class Moving(type(net)):
        def __init__(self) -> None:
            super().__init__()
            self.site = TemporalMotionModule(TemporalConfig(num_heads=2, norm_groups=4), 8)
            torch.nn.init.normal_(self.site.proj_out.weight, std=0.1)

        def forward(self, x, timestep):
            frames = super().forward(x, timestep)[None, :, None, None]
            return self.site(frames, MotionContext(torch.arange(float(len(x)))))[0, :, 0, 0]

    torch.manual_seed(0)
    return Moving()


def train(net, x, names, folder, steps: int = 4, seen: int = 2, optimizer: torch.optim.SGD | None = None) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3) if optimizer is None else optimizer
    with TrainingTools(names, net, folder, seen) as tools:
        for step in range(steps):
            tools.begin_step(step)
            net(x, torch.ones(())).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()


def test_each_tool_leaves_its_report_of_the_first_steps(net, x, tmp_path):
    train(net, x, TOOLS, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "attention",
        "gradients.json",
        "gradients.png",
        "gradients.txt",
        "memory.json",
        "memory.png",
        "memory.txt",
        "probe.json",
        "probe.safetensors",
        "profile.json",
        "profile.txt",
        "trace-forward.json",
    }
    assert json.loads((tmp_path / "gradients.json").read_text())["steps"] == 2
    calls = [module.call for module in Recording.load(tmp_path / "probe").modules if module.module == "head"]
    assert calls == [0, 1]


def test_a_short_run_is_reported_too(net, x, tmp_path):
    train(net, x, ("gradients",), tmp_path, steps=1, seen=10)
    assert json.loads((tmp_path / "gradients.json").read_text())["steps"] == 1


def test_attention_is_seen_where_batches_have_clips_of_several_lengths(net, x, tmp_path):
    with TrainingTools(("attention",), net, tmp_path, 3) as tools:
        for step, frames in enumerate((4, 2, 4)):
            tools.begin_step(step)
            net(x[:frames], torch.ones(())).sum().backward()
    maps = load_file(tmp_path / "attention" / "attention.safetensors")
    assert [each.shape for each in maps.values()] == [(2, 4, 4)] * 2


def test_a_run_that_ends_in_an_error_is_reported_too(net, x, tmp_path):
    class Fails(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way") as caught:
        train(net, x, TOOLS, tmp_path, optimizer=Fails(net.parameters(), lr=1e-3))
    assert {"gradients.json", "memory.json", "probe.json", "profile.json", "attention"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert not hasattr(caught.value, "__notes__")


def test_a_report_that_cannot_be_made_does_not_hide_the_error(net, x, tmp_path):
    with pytest.raises(RuntimeError, match="cannot be multiplied") as caught:
        train(net, x[:, :3], TOOLS, tmp_path)
    assert any("'gradients' left no report: No step" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_report_that_cannot_be_written_leaves_no_hook(net, x, tmp_path, steps):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(net, x, ("anomaly", "gradients", "memory"), tmp_path / "file", steps)
    assert not torch_module._global_forward_hooks
    assert not any(weight._backward_hooks for weight in net.parameters())


def test_a_tool_that_cannot_begin_leaves_no_other_in_place(net, tmp_path):
    tools = TrainingTools(("anomaly", "attention", "gradients"), net, tmp_path)
    processors = [module.processor for module in net.modules() if hasattr(module, "processor")]
    with tools._tools["gradients"]:
        with pytest.raises(ConfigError, match="in use"):
            tools.__enter__()
        assert not torch_module._global_forward_hooks
    assert [module.processor for module in net.modules() if hasattr(module, "processor")] == processors
    assert list(tmp_path.iterdir()) == []


def test_the_guard_stays_for_the_whole_run(net, x, tmp_path):
    class BreaksLater(torch.optim.SGD):
        steps = 0

        def step(self, closure=None):
            super().step(closure)
            self.steps += 1
            if self.steps == 7:
                with torch.no_grad():
                    net.head.weight[0, 0] = torch.nan

    with pytest.raises(NonFiniteError, match="training step 7"):
        train(net, x, TOOLS, tmp_path, 9, 1, BreaksLater(net.parameters(), lr=1e-3))
    assert (tmp_path / "anomaly-head.json").is_file()


def test_training_is_the_same(net, x, tmp_path):
    other = type(net)()
    other.load_state_dict(net.state_dict())
    train(net, x, TOOLS, tmp_path)
    train(other, x, (), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_no_step_leaves_nothing(net, tmp_path):
    with TrainingTools(TOOLS, net, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_names_are_refused(net, tmp_path):
    with pytest.raises(ConfigError, match=r"no debugging tool 'gradient'.*gradients"):
        TrainingTools(["gradient"], net, tmp_path)
    with pytest.raises(ConfigError, match="one step"):
        TrainingTools([], net, tmp_path, 0)
    with pytest.raises(ConfigError, match="no motion module"):
        TrainingTools(["attention"], net.head, tmp_path)
    without_attention = TimestepFilmMotionModule(TimestepFilmConfig(), 8, timestep_width=4)
    with pytest.raises(ConfigError, match="no attention between frames"):
        TrainingTools(["attention"], without_attention, tmp_path)


def trainer(net, x, folder, **settings) -> Trainer:
    class Method(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, batch, generator):
            return {"loss": self.net(batch["x"], torch.ones(())).square().mean()}

    config = TrainerConfig(**{"steps": 3, "mixed_precision": "no", **settings})
    return Trainer(Method(), lambda index: {"x": x}, config, folder)  # noqa: ARG005


def test_a_trainer_takes_tools_by_flag(net, x, tmp_path):
    trainer(net, x, tmp_path, debug=TOOLS, debug_steps=2).fit()
    assert json.loads((tmp_path / "debug" / "gradients.json").read_text())["steps"] == 2
    assert {"memory.json", "probe.json", "trace-forward.json"} <= {path.name for path in (tmp_path / "debug").iterdir()}
    with pytest.raises(ConfigError, match="no motion module"):
        trainer(net.head, x, tmp_path / "new", debug=("attention",))


def test_a_run_goes_on_with_other_tools_and_without_any(net, x, tmp_path):
    trainer(net, x, tmp_path).fit()
    assert not (tmp_path / "debug").exists()
    trainer(net, x, tmp_path, steps=5, debug=("gradients",)).fit()
    assert json.loads((tmp_path / "debug" / "gradients.json").read_text())["steps"] == 2
    trainer(net, x, tmp_path, steps=6).fit()


def test_the_guard_of_a_trainer_names_layer_and_step(net, x, tmp_path):
    run = trainer(net, x, tmp_path, debug=("anomaly",))
    with torch.no_grad():
        net.blocks[1].first.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"net\.blocks\.1\.first \(Linear\), forward, training step 0"):
        run.fit()


def test_tools_are_no_part_of_a_recorded_recipe():
    plain = MotionStage(method="motion", steps=3, batch_size=2)
    watched = MotionStage(method="motion", steps=3, batch_size=2, debug=("anomaly", "gradients"), debug_steps=4)
    assert (watched.debug, watched.debug_steps) == (("anomaly", "gradients"), 4)
    assert watched.model_dump_json() == plain.model_dump_json()
    assert "debug" not in plain.model_dump_json()
    assert get_args(DebugTool) == TOOL_NAMES
