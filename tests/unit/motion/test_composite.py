"""The kinds `compose` and `mix`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.motion import (
    ComposeConfig,
    CompositeMotionModule,
    ModuleSpec,
    MotionAdapter,
    MotionContext,
    MotionModule,
    MotionSite,
    TemporalConfig,
    TimestepFilmConfig,
    build_motion_module,
)

WIDTH, WIDTHS = 16, {"timestep_width": 8}
TEMPORAL: dict[str, Any] = {"kind": "temporal", "config": {"num_heads": 4, "norm_groups": 4, "trained_frames": 16}}
FILM: dict[str, Any] = {"kind": "timestep_film", "config": {"hidden_dim": 8}}
PARTS = [TEMPORAL, FILM]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(kind: str, parts: list[Any] = PARTS, fresh: bool = False, **settings: Any) -> CompositeMotionModule:
    torch.manual_seed(0)
    module = build_motion_module(ModuleSpec(kind, WIDTH, {"modules": parts, **settings}, WIDTHS))
    assert isinstance(module, CompositeMotionModule)
    if not fresh:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return module


def context_of(frames: int = 3, strength: float = 1.0) -> MotionContext:
    return MotionContext(torch.arange(frames).float(), draw(2, 8, seed=5), strength=strength)


def close(found: Tensor, expected: Tensor) -> bool:
    return float(((found - expected).abs().max() / expected.abs().max()).detach()) <= 1e-5


@pytest.mark.parametrize("kind", ["compose", "mix"])
def test_fresh_is_the_identity(kind: str) -> None:
    x = draw(2, 3, 2, 2, WIDTH)
    assert torch.equal(build(kind, fresh=True)(x, context_of()), x)


@pytest.mark.parametrize("grad", [True, False])
def test_compose_is_one_after_the_other(grad: bool) -> None:
    module, x = build("compose"), draw(2, 3, 2, 2, WIDTH)
    before = x.clone()
    first, second = module.parts
    with torch.set_grad_enabled(grad):
        expected = second(first(x, context_of()), context_of())
        found = module(x, context_of())
        half = module(x, context_of(strength=0.5))
    assert close(found, expected)
    assert close(half, x + 0.5 * (expected - x))
    assert not close(found, first(second(x, context_of()), context_of()))
    assert torch.equal(x, before)


@pytest.mark.parametrize("grad", [True, False])
def test_mix_is_the_weighted_sum(grad: bool) -> None:
    module, x = build("mix", weights=[0.3, -2.0]), draw(2, 3, 2, 2, WIDTH)
    first, second = module.parts
    with torch.set_grad_enabled(grad):
        changes = [part(x, context_of()) - x for part in (first, second)]
        found = module(x, context_of())
    assert close(found, x + 0.3 * changes[0] - 2 * changes[1])


def test_a_part_of_weight_or_strength_0_adds_nothing() -> None:
    x = draw(2, 3, 2, 2, WIDTH)
    module = build("mix", weights=[1.0, 0.0])
    assert close(module(x, context_of()), module.parts[0](x, context_of()))
    assert torch.equal(build("mix", weights=[0, 0])(x, context_of()), x)
    composed = build("compose")
    first = composed.parts[0]
    assert isinstance(first, MotionModule)
    first.strength = 0.0
    assert close(composed(x, context_of()), composed.parts[1](x, context_of()))


@pytest.mark.parametrize("kind", ["compose", "mix"])
def test_promises_are_those_of_all_parts(kind: str) -> None:
    both, film = build(kind), build(kind, ["timestep_film"])
    assert (both.frame_order, both.causal, both.config.trained_frames) == ("ordered", False, 16)
    assert (film.frame_order, film.causal, film.config.trained_frames) == ("equivariant", True, None)
    assert both.inputs_of(both.config) == ("timestep",)
    alone = ComposeConfig(modules=(TEMPORAL,))
    assert both.inputs_of(alone) == ()


def test_parts_inside_parts_are_saved_whole() -> None:
    inner = {"kind": "mix", "config": {"modules": PARTS, "weights": [0.5, 0.5]}}
    module = build("compose", [inner, "timestep_film"])
    again = build_motion_module(ModuleSpec("compose", WIDTH, module.config.to_dict(), WIDTHS))
    assert again.config == module.config
    assert again.state_dict().keys() == module.state_dict().keys()
    assert module.config.modules[0]["config"]["modules"][0]["config"]["num_heads"] == 4
    assert "trained_frames" not in module.config.to_dict()


def test_an_adapters_preset_reaches_the_parts() -> None:
    site = MotionSite("blocks.0.motion_modules.0", WIDTH, **WIDTHS)
    adapter = MotionAdapter.for_sites([site], "compose", {"modules": PARTS}, numerics="diffusers")
    ((_, module),) = adapter.motion_modules()
    assert isinstance(module, CompositeMotionModule)
    inner = module.parts[0].config
    assert isinstance(inner, TemporalConfig)
    assert inner.norm_scope == "video"
    assert isinstance(module.parts[1].config, TimestepFilmConfig)
    saved = adapter.settings()["modules_by_site"][site.name]
    assert saved["config"]["modules"][0]["config"]["norm_scope"] == "video"
    assert MotionAdapter.from_settings(adapter.settings()).settings() == adapter.settings()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "are given as modules"),
        ({"modules": "temporal"}, "are given as modules"),
        ({"modules": [{"name": "temporal"}]}, "A part is a kind or"),
        ({"modules": ["tempral"]}, "did you mean 'temporal'"),
        ({"modules": [{"kind": "temporal", "config": {"heads": 1}}]}, "no setting heads"),
        ({"modules": ["temporal"], "trained_frames": 3}, "no setting trained_frames"),
    ],
)
def test_wrong_parts(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_motion_module(ModuleSpec("compose", WIDTH, config, WIDTHS))


@pytest.mark.parametrize("weights", [[1.0], [1.0, float("nan")], [1.0, 2.0, 3.0]])
def test_wrong_weights(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="mixture of 2 modules needs as many finite weights"):
        build("mix", weights=weights)
