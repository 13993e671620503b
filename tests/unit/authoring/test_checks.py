"""The contract's checks: sound kinds pass them all, and each way of being broken is found by the check of its name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.authoring.checks import CHECK_NAMES, check_motion_module
from muybridge.authoring.device_guard import OneDevice, TwoDevicesError
from muybridge.errors import ConfigError
from muybridge.motion import MotionContext, MotionModule, MotionModuleConfig, register_motion_module

BUILT_IN: dict[str, dict[str, Any]] = {
    "temporal": {},
    "hybrid": {},
    "low_rank": {},
    "timestep_film": {"hidden_dim": 32},
    "compose": {"modules": ["low_rank", "timestep_film"]},
    "mix": {"modules": ["low_rank", "timestep_film"], "weights": [0.5, 2.0]},
}


@pytest.mark.parametrize("kind", BUILT_IN)
def test_built_in_kinds_pass(kind):
    report = check_motion_module(kind, BUILT_IN[kind])

    assert report.passed, str(report)
    assert tuple(result.name for result in report.results) == CHECK_NAMES
    statuses = {result.name: result.status for result in report.results}
    assert statuses.pop("cost") == "reported"
    assert statuses.pop("causality") == ("passed" if kind == "timestep_film" else "not applicable")
    assert set(statuses.values()) == {"passed"}


@register_motion_module("test-sound")
class Sound(MotionModule):
    """Each frame is told about the one before it; what is below breaks one of its promises each."""

    causal = True
    zero_start = True

    def __init__(self, config: MotionModuleConfig, width: int) -> None:
        super().__init__(config, width)
        self.proj_in = nn.Linear(width, 8)
        self.earlier = nn.Linear(width, 8)
        self.proj_out = nn.Linear(8, width)
        if self.zero_start:
            nn.init.zeros_(self.proj_out.weight)
            nn.init.zeros_(self.proj_out.bias)

    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        before = F.pad(features, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        return F.silu(self.proj_in(features) + self.earlier(before))

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        return self.proj_out(self.hidden(features, context))


class WidthOfItsOwn(Sound):
    def __init__(self, config: MotionModuleConfig, width: int) -> None:
        if width != 320:
            raise ValueError("made for 320 channels")
        super().__init__(config, width)


class LosesFrames(Sound):
    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        return super().motion(features, context)[:, 1:]


class ForgetsToCastBack(Sound):
    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        change = super().motion(features, context)
        return change.float() if change.dtype == torch.bfloat16 else change


class ConstantOnTheCpu(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return super().hidden(features, context) @ torch.eye(8, dtype=features.dtype)


class ChangesItsInput(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return super().hidden(features.add_(1.0), context)


class DrawsNoise(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        hidden = super().hidden(features, context)
        return hidden + 0.01 * torch.randn_like(hidden)


class RemembersTheLastCall(Sound):
    last = 0.0

    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        hidden = super().hidden(features, context) + self.last
        self.last = 1.0
        return hidden


class NotTheIdentity(Sound):
    zero_start = False


class AStrengthOfItsOwn(Sound):
    def forward(self, features: Tensor, context: MotionContext, change_only: bool = False) -> Tensor:
        change = self.motion(features, context)
        return change if change_only else features + change


class DeadParameter(Sound):
    def __init__(self, config: MotionModuleConfig, width: int) -> None:
        super().__init__(config, width)
        self.unused = nn.Linear(width, 8)


class ClosedGate(Sound):
    """Two zeros in a row: neither ever gets a gradient."""

    def __init__(self, config: MotionModuleConfig, width: int) -> None:
        super().__init__(config, width)
        self.gate = nn.Parameter(torch.zeros(8))

    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return super().hidden(features, context) * self.gate

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        return F.linear(self.hidden(features, context), self.proj_out.weight)


class WrongBackward(Sound):
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, value: Tensor) -> Tensor:
            return value * 0.5

        @staticmethod
        def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * 2.0

    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return self.Half.apply(super().hidden(features, context))


class TableOfPositions(Sound):
    def __init__(self, config: MotionModuleConfig, width: int) -> None:
        super().__init__(config, width)
        self.table = nn.Parameter(torch.ones(config.trained_frames or 1, 8))

    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        positions = self.table[context.frame_positions.long()]
        return super().hidden(features, context) + positions[:, None, None]


class LeaksAcrossTheBatch(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        hidden = super().hidden(features, context)
        return hidden - hidden.mean(dim=0, keepdim=True) * 0.1


class LeaksWhileTraining(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        hidden = super().hidden(features, context)
        return hidden + hidden.amax(dim=0) if self.training else hidden


class SaysItIsEquivariant(Sound):
    frame_order = "equivariant"


class SaysItIsOrdered(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return F.silu(self.proj_in(features) + self.earlier(features))


class SaysItIsCausal(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return super().hidden(features, context) + self.proj_in(features.mean(dim=1, keepdim=True))


class CancelsInBfloat16(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return super().hidden(features, context) + 1000 - 1000


class BreaksTheGraph(Sound):
    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        hidden = super().hidden(features, context)
        return hidden.clamp(-5, 5) if hidden.detach().abs().amax().item() > 1e9 else hidden


@dataclass(frozen=True)
class ConfigThatChanges(MotionModuleConfig):
    sizes: Any = (1, 2)


class SettingsThatAreNotPlain(Sound):
    config_class: ClassVar[type[MotionModuleConfig]] = ConfigThatChanges


class NumberThatIsNotSaved(Sound):
    def __init__(self, config: MotionModuleConfig, width: int) -> None:
        super().__init__(config, width)
        self.gain = float(torch.rand(()))

    def hidden(self, features: Tensor, context: MotionContext) -> Tensor:
        return super().hidden(features, context) * (1 + self.gain)


BROKEN: dict[type[Sound], str] = {
    WidthOfItsOwn: "builds",
    LosesFrames: "shape",
    ForgetsToCastBack: "dtype",
    ConstantOnTheCpu: "device",
    ChangesItsInput: "input unchanged",
    DrawsNoise: "deterministic",
    RemembersTheLastCall: "deterministic",
    NotTheIdentity: "identity at start",
    AStrengthOfItsOwn: "strength",
    DeadParameter: "gradients",
    ClosedGate: "gradients",
    WrongBackward: "numerical gradient",
    TableOfPositions: "number of frames",
    LeaksAcrossTheBatch: "batch",
    LeaksWhileTraining: "batch",
    SaysItIsEquivariant: "frame order",
    SaysItIsOrdered: "frame order",
    SaysItIsCausal: "causality",
    CancelsInBfloat16: "bfloat16",
    BreaksTheGraph: "compile",
    SettingsThatAreNotPlain: "saved and loaded",
    NumberThatIsNotSaved: "saved and loaded",
}
for broken in BROKEN:
    register_motion_module(f"test-{broken.__name__}")(broken)


def test_a_sound_module_passes():
    report = check_motion_module(Sound)

    assert report.passed, str(report)
    statuses = {result.name: result.status for result in report.results}
    assert statuses == {**dict.fromkeys(CHECK_NAMES, "passed"), "cost": "reported"}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.__name__)
def test_what_is_broken_is_found_by_the_check_of_that_name_alone(broken):
    report = check_motion_module(broken)

    assert report.failures == [BROKEN[broken]], str(report)
    assert not report.passed


def test_every_check_that_judges_has_been_seen_to_fail():
    assert {*BROKEN.values(), "cost"} == set(CHECK_NAMES)


def test_details_name_what_is_wrong():
    def detail(broken: type[Sound], name: str) -> str:
        report = check_motion_module(broken, only=[name])
        return next(result.detail for result in report.results if result.name == name)

    assert "2 of 8 parameters are dead after 2 steps: unused.weight, unused.bias" in detail(DeadParameter, "gradients")
    assert "returns float32 for bfloat16" in detail(ForgetsToCastBack, "dtype")
    assert "ValueError: made for 320 channels" in detail(WidthOfItsOwn, "builds")
    assert "returns [2, 3, 1, 1, 32] for [2, 4, 1, 1, 32]" in detail(LosesFrames, "shape")
    assert "aten.mm" in detail(ConstantOnTheCpu, "device")


def test_only_what_is_named_runs_and_what_it_needs():
    report = check_motion_module("test-sound", only=["batch"])

    assert [result.name for result in report.results] == ["builds", "shape", "deterministic", "batch"]


def test_what_builds_on_a_failed_check_is_not_judged():
    report = check_motion_module(DrawsNoise, only=["batch"])

    last = report.results[-1]
    assert (last.name, last.status) == ("batch", "not applicable")
    assert "'deterministic'" in last.detail


def test_the_report_is_plain_values_and_a_table():
    report = check_motion_module("test-sound", only=["shape"])

    values = json.loads(json.dumps(report.to_dict()))
    assert values["kind"] == "test-sound"
    assert values["passed"] is True
    assert values["checks"][1] == {"name": "shape", "status": "passed", "detail": report.results[1].detail}
    assert [line.split()[:2] for line in str(report).splitlines()] == [["builds", "passed"], ["shape", "passed"]]


def test_the_random_state_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()

    check_motion_module("test-sound", only=["gradients", "batch", "number of frames"])

    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_questions_are_refused():
    class Unregistered(Sound):
        pass

    with pytest.raises(ConfigError, match="did you mean 'temporal'"):
        check_motion_module("tempral")
    with pytest.raises(ConfigError, match="no setting heads"):
        check_motion_module("temporal", {"heads": 4})
    with pytest.raises(ConfigError, match=r"There is no check speed\. Checks: builds, shape"):
        check_motion_module("temporal", only=["speed"])
    with pytest.raises(ConfigError, match="Unregistered is not registered"):
        check_motion_module(Unregistered)
    with pytest.raises(ConfigError, match="no motion module"):
        check_motion_module(nn.Linear)  # type: ignore[arg-type]


def test_a_product_across_devices_is_refused_where_torch_lets_it_pass():
    there = torch.ones(2, 3, device="meta")

    assert (there @ torch.ones(3, 2)).shape == (2, 2)  # torch by itself
    with OneDevice(), pytest.raises(TwoDevicesError, match=r"aten\.mm"):
        _ = there @ torch.ones(3, 2)
    with OneDevice():
        assert (there * torch.tensor(2.0)).shape == (2, 3)
        assert there[:, torch.tensor([0, 2])].shape == (2, 2)
        assert torch.ones(3).to(there).device.type == "meta"
