"""What every motion module is held to at each call, and the strength it acts with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from muybridge.errors import ConfigError, ShapeError
from muybridge.motion import (
    ModuleSpec,
    MotionAdapter,
    MotionContext,
    MotionModule,
    MotionModuleConfig,
    MotionSite,
    build_motion_module,
    register_motion_module,
)
from muybridge.motion.contract import ContextInput
from muybridge.motion.positions import cap_positions, stretch_positions

SITE = MotionSite("blocks.0.motion_modules.1", 4, timestep_width=8, text_width=6)


@dataclass(frozen=True)
class OddConfig(MotionModuleConfig):
    """What `Odd` returns."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    value: float = 1.0


@register_motion_module("test-odd")
class Odd(MotionModule):
    """Returns what its config says."""

    config_class: ClassVar[type[MotionModuleConfig]] = OddConfig
    supported_dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    config: OddConfig

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        shape = self.config.shape or features.shape
        return torch.full(shape, self.config.value, dtype=getattr(torch, self.config.dtype))


@register_motion_module("test-forgetful")
class Forgetful(MotionModule):
    """Keeps the width of the text to itself."""

    context_inputs: ClassVar[tuple[ContextInput, ...]] = ("text",)

    def __init__(self, config: MotionModuleConfig, width: int, *, text_width: int) -> None:
        super().__init__(config, width)
        self.own_text_width = text_width

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        return torch.zeros_like(features)


def odd_at_site(**config: object) -> MotionModule:
    adapter = MotionAdapter.for_sites([SITE], "test-odd", config)
    return next(module for _, module in adapter.motion_modules())


def context_of(frames: int, strength: float | Tensor = 1.0) -> MotionContext:
    return MotionContext(torch.arange(frames).float(), strength=strength)


@pytest.mark.parametrize("grad", [True, False])
def test_another_shape_is_named_with_site_and_kind(grad: bool) -> None:
    words = r"'test-odd' at blocks\.0\.motion_modules\.1 returned \[1, 2, 1, 1, 3\] for features \[1, 2, 1, 1, 4\]"
    with torch.set_grad_enabled(grad), pytest.raises(ShapeError, match=words):
        odd_at_site(shape=(1, 2, 1, 1, 3))(torch.zeros(1, 2, 1, 1, 4), context_of(2))


@pytest.mark.parametrize("grad", [True, False])
def test_another_dtype_is_named_with_site_and_kind(grad: bool) -> None:
    words = r"'test-odd' at blocks\.0\.motion_modules\.1 returned torch.float64 for features of torch.float32"
    with torch.set_grad_enabled(grad), pytest.raises(ConfigError, match=words):
        odd_at_site(dtype="float64")(torch.zeros(1, 2, 1, 1, 4), context_of(2))


def test_a_dtype_that_the_module_does_not_support() -> None:
    with pytest.raises(ConfigError, match=r"'test-odd' at .* does not work in torch.float16; supported: torch.float32"):
        odd_at_site()(torch.zeros(1, 2, 1, 1, 4, dtype=torch.float16), context_of(2))


@pytest.mark.parametrize("grad", [True, False])
def test_strength_of_each_frame(grad: bool) -> None:
    features = torch.zeros(2, 3, 1, 1, 4)
    with torch.set_grad_enabled(grad):
        found = odd_at_site()(features, context_of(3, torch.tensor([0.0, 0.5, 2.0])))
    assert torch.equal(found[:, :, 0, 0, 0], torch.tensor([[0.0, 0.5, 2.0]] * 2))


@pytest.mark.parametrize("strength", [2.0, torch.tensor([2.0, 2.0])])
def test_strength_of_the_site_multiplies_that_of_the_call(strength: float | Tensor) -> None:
    module = odd_at_site()
    module.strength = 0.25
    features = torch.zeros(1, 2, 1, 1, 4)
    assert torch.equal(module(features, context_of(2, strength)), features + 0.5)
    module.strength = 0.0
    assert module(features, context_of(2, strength)) is features


def test_strength_by_pattern() -> None:
    names = ("down_blocks.0.motion_modules.0", "mid_block.motion_modules.0", "up_blocks.0.motion_modules.0")
    adapter = MotionAdapter.for_sites([MotionSite(name, 4) for name in names], "test-odd")
    adapter.set_strength({"up_blocks.*": 0.5, "*.0.*": 0.25})
    assert list(adapter.strengths.values()) == [0.25, 1.0, 0.5]
    adapter.set_strength(0)
    assert adapter.is_silent
    adapter.set_strength({"mid_block.*": 1})
    assert not adapter.is_silent
    assert list(adapter.strengths.values()) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("strength", "words"),
    [
        ({"up_block.*": 0.5}, r"No motion site is called 'up_block.\*'. There are 1: blocks.0"),
        ({"*": 1.0, "blocks.*": 0.5}, r"'blocks.\*' has no effect: earlier patterns"),
        (float("nan"), "finite number; given nan"),
    ],
)
def test_strengths_without_effect(strength: float | dict[str, float], words: str) -> None:
    adapter = MotionAdapter.for_sites([SITE], "test-odd")
    with pytest.raises(ConfigError, match=words):
        adapter.set_strength(strength)
    assert adapter.strengths == {SITE.name: 1.0}


def test_widths_come_from_the_site() -> None:
    adapter = MotionAdapter.for_sites([SITE], "low_rank")
    assert adapter.settings()["modules_by_site"][SITE.name]["context_widths"] == {"timestep_width": 8}
    assert adapter.sites == {SITE.name: MotionSite(SITE.name, 4, timestep_width=8)}
    with pytest.raises(ConfigError, match="has no timestep width, which this kind needs"):
        MotionAdapter.for_sites([MotionSite("blocks.0.motion_modules.1", 4)], "low_rank")


def test_a_module_must_hand_its_widths_on() -> None:
    with pytest.raises(ConfigError, match=r"Forgetful must hand on .*super\(\).__init__\(config, width, text_width="):
        build_motion_module(ModuleSpec("test-forgetful", 4, {}, {"text_width": 6}))


def test_mixed_adapters_share_their_weights() -> None:
    other = MotionSite("blocks.1.motion_modules.0", 4)
    first = MotionAdapter.for_sites([SITE, other], "test-odd", {"value": 1.0})
    second = MotionAdapter.for_sites([SITE], "test-odd", {"value": 10.0, "trained_frames": 8})
    mixed = MotionAdapter.mixed([first, second], [0.5, 0.2])
    features = torch.zeros(1, 2, 1, 1, 4)
    found = {name: float(module(features, context_of(2)).mean()) for name, module in mixed.motion_modules()}
    assert found == {SITE.name: pytest.approx(2.5), other.name: pytest.approx(0.5)}
    assert mixed.trained_frames == 8
    inside = {id(module) for module in mixed.modules()}
    assert all(id(module) in inside for adapter in (first, second) for _, module in adapter.motion_modules())
    assert MotionAdapter.from_settings(mixed.settings()).settings() == mixed.settings()


def test_adapters_that_cannot_be_mixed() -> None:
    first = MotionAdapter.for_sites([SITE], "test-odd")
    with pytest.raises(ConfigError, match="a weight for each adapter; given 1 and 2"):
        MotionAdapter.mixed([first], [1.0, 2.0])
    with pytest.raises(ConfigError, match="official-v3 and official-v1 pool their norms differently"):
        MotionAdapter.mixed([first, MotionAdapter.for_sites([SITE], "test-odd", numerics="official-v1")], [1, 1])
    with pytest.raises(ConfigError, match=r"different backbones cannot be mixed: blocks.0.motion_modules.1 has widths"):
        MotionAdapter.mixed([first, MotionAdapter.for_sites([MotionSite(SITE.name, 8)], "test-odd")], [1, 1])


def test_positions_are_drawn_together_only_beyond_the_trained() -> None:
    assert torch.equal(stretch_positions(torch.arange(5), 9), torch.arange(5.0))
    assert torch.allclose(stretch_positions(torch.arange(17), 9), torch.arange(17) / 2)
    assert torch.equal(stretch_positions(torch.tensor([0]), 1), torch.tensor([0.0]))
    assert torch.equal(stretch_positions(torch.arange(3), 1), torch.zeros(3))
    assert torch.equal(cap_positions(torch.arange(6), 4), torch.tensor([0.0, 1, 2, 3, 3, 3]))
