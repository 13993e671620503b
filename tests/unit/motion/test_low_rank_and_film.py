"""The kinds `low_rank` and `timestep_film`: identity at start, gradients, what they see and what they do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.errors import ConfigError, ShapeError
from muybridge.motion import ModuleSpec, MotionContext, MotionModule, build_motion_module, motion_module_class
from muybridge.motion import pieces as piece_sizes

WIDTH, TIMESTEP = 16, 24
KINDS = ("low_rank", "timestep_film")
SMALL: dict[str, dict[str, int]] = {"low_rank": {"motion_rank": 8}, "timestep_film": {"hidden_dim": 8}}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(kind: str, fresh: bool = False, **settings: int) -> MotionModule:
    torch.manual_seed(0)
    module = build_motion_module(ModuleSpec(kind, WIDTH, {**SMALL[kind], **settings}, {"timestep_width": TIMESTEP}))
    if not fresh:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def context_of(frames: int, batch: int = 2, **values: Tensor) -> MotionContext:
    return MotionContext(torch.arange(frames).float(), draw(batch, TIMESTEP, seed=3), **values)


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grad", [True, False])
def test_fresh_is_the_identity(kind: str, grad: bool) -> None:
    x = draw(2, 3, 4, 5, WIDTH)
    with torch.set_grad_enabled(grad):
        assert torch.equal(build(kind, fresh=True)(x, context_of(3)), x)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_at_the_second_step(kind: str) -> None:
    module = build(kind, fresh=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (module(draw(2, 3, 4, 5, WIDTH), context_of(3)) - draw(2, 3, 4, 5, WIDTH, seed=1)).square().mean().backward()
        optimizer.step()
    dead = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contiguous", [True, False])
def test_inference_in_pieces_is_training(kind: str, contiguous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = build(kind), draw(2, 3, 4, 5, WIDTH)
    if not contiguous:
        x = x.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    before = x.clone()
    trained = module(x, context_of(3)).detach()
    monkeypatch.setattr(piece_sizes, "PIECE_TOKENS", 13)
    with torch.no_grad():
        found = module(x, context_of(3))
    assert difference(found, trained) <= 1e-6
    assert torch.equal(x, before)
    assert difference(trained, x) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_level_counts_for_its_own_video_only(kind: str) -> None:
    module, x, context = build(kind), draw(2, 3, 4, 5, WIDTH), context_of(3)
    assert context.timestep_embedding is not None
    other = context.timestep_embedding.clone()
    other[1] += 1
    with torch.no_grad():
        found, expected = module(x, MotionContext(context.frame_positions, other)), module(x, context)
    assert torch.equal(found[0], expected[0])
    assert difference(found[1], expected[1]) > 1e-3


def test_low_rank_mixes_frames_at_one_place_only() -> None:
    module, x = build("low_rank"), draw(1, 4, 3, 3, WIDTH)
    changed = x.clone()
    changed[:, 0, 1, 2] += draw(WIDTH, seed=9)
    with torch.no_grad():
        moved = (module(changed, context_of(4, 1)) - module(x, context_of(4, 1))).abs().amax(dim=(0, 1, 4))
        others = (module(changed, context_of(4, 1)) - module(x, context_of(4, 1)))[:, 1:, 1, 2].abs().amax()
    assert others > 1e-4
    moved[1, 2] = 0
    assert moved.max() <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_frames_is_as_declared(kind: str) -> None:
    module, x, order = build(kind), draw(2, 4, 3, 3, WIDTH), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        permuted, expected = module(x[:, order], context_of(4)), module(x, context_of(4))[:, order]
    assert (difference(permuted, expected) <= 1e-6) == (module.frame_order == "equivariant")
    assert module.causal == (kind == "timestep_film")


def test_scale_and_shift_of_low_rank_are_those_of_its_definition() -> None:
    module, x, context = build("low_rank"), draw(2, 3, 2, 2, WIDTH), context_of(3)
    plain = build("low_rank")
    with torch.no_grad():
        plain.get_parameter("modulation.weight").zero_()
        plain.get_parameter("modulation.bias").zero_()
        plain.get_parameter("proj_out.bias").zero_()
        attended = (plain.motion(x, context) @ torch.linalg.pinv(plain.get_parameter("proj_out.weight")).T)[..., :8]
        weight, bias = module.get_parameter("modulation.weight"), module.get_parameter("modulation.bias")
        assert context.timestep_embedding is not None
        known = torch.nn.functional.silu(context.timestep_embedding) @ weight.T + bias
        scale, shift = known[:, None, None, None].chunk(2, dim=-1)
        expected = (attended * (1 + scale) + shift) @ module.get_parameter("proj_out.weight").T
        expected = expected + module.get_parameter("proj_out.bias")
        assert difference(module.motion(x, context), expected) <= 1e-4


def test_film_is_the_mean_of_its_networks() -> None:
    module, x, context = build("timestep_film", num_layers=3), draw(2, 3, 2, 2, WIDTH), context_of(3)
    assert context.timestep_embedding is not None
    time = torch.nn.functional.silu(context.timestep_embedding)[:, None, None, None]
    with torch.no_grad():
        normed = torch.nn.functional.layer_norm(
            x, (WIDTH,), module.get_parameter("norm.weight"), module.get_parameter("norm.bias")
        )
        outputs = []
        for rows in torch.arange(24).chunk(3):
            hidden = normed @ module.get_parameter("features_in.weight")[rows].T
            hidden = hidden + module.get_parameter("features_in.bias")[rows]
            hidden = torch.nn.functional.silu(hidden + time @ module.get_parameter("timestep_in.weight")[rows].T)
            last = 3 * module.get_parameter("proj_out.weight")[:, rows]
            outputs.append(hidden @ last.T + module.get_parameter("proj_out.bias"))
        scale, shift = torch.stack(outputs).mean(dim=0).chunk(2, dim=-1)
        assert difference(module(x, context), x * (1 + scale) + shift) <= 1e-5


def test_a_condition_of_ones_own() -> None:
    module, x = build("low_rank", motion_condition_width=6), draw(2, 3, 4, 5, WIDTH)
    first, second = draw(2, 6), draw(2, 6, seed=1)
    with torch.no_grad():
        one, other = (module(x, context_of(3, motion_condition=given)) for given in (first, second))
        assert difference(one, other) > 1e-3
        with pytest.raises(ConfigError, match="needs motion_condition"):
            module(x, context_of(3))
        with pytest.raises(ShapeError, match=r"motion_condition must be \[2, 6\].*given \[2, 5\]"):
            module(x, context_of(3, motion_condition=draw(2, 5)))


@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_level_is_an_error(kind: str) -> None:
    with pytest.raises(ConfigError, match="needs timestep_embedding"):
        build(kind)(draw(2, 3, 4, 5, WIDTH), MotionContext(torch.arange(3)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept(kind: str, dtype: torch.dtype) -> None:
    module, x, context = build(kind).to(dtype), draw(2, 3, 4, 5, WIDTH), context_of(3)
    assert context.timestep_embedding is not None
    lower = MotionContext(context.frame_positions, context.timestep_embedding.to(dtype))
    with torch.no_grad():
        found = module(x.to(dtype), lower)
        expected = build(kind)(x, context)
    assert found.dtype == dtype
    assert difference(found.float(), expected) <= (0.05 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grad", [True, False])
def test_autocast_keeps_the_dtype_of_the_features(kind: str, grad: bool) -> None:
    x = draw(2, 3, 4, 5, WIDTH)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        found = build(kind)(x, context_of(3))
    assert found.dtype == torch.float32
    assert difference(found.detach(), build(kind)(x, context_of(3)).detach()) <= 0.05


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("low_rank", {"motion_rank": 10}), ("low_rank", {"num_heads": 0}), ("timestep_film", {"num_layers": 0})],
)
def test_settings_that_cannot_be(kind: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{kind} needs"):
        build(kind, **settings)


def test_default_settings() -> None:
    low_rank, film = (motion_module_class(kind).config_class().to_dict() for kind in KINDS)
    assert low_rank == {"trained_frames": 32, "motion_rank": 64, "num_heads": 4, "motion_condition_width": None}
    assert film == {"trained_frames": None, "num_layers": 3, "hidden_dim": 256}


def test_the_width_of_the_timestep_is_needed() -> None:
    with pytest.raises(ConfigError, match="'low_rank' depends on timestep_width"):
        build_motion_module(ModuleSpec("low_rank", WIDTH))
