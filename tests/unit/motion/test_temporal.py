"""The kind `temporal` against its formula, written out here a second time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from muybridge.errors import ConfigError
from muybridge.motion import MotionContext, TemporalConfig, TemporalMotionModule
from muybridge.motion.positions import sinusoidal_positions

Maker = Callable[..., TemporalMotionModule]


def features_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def context_of(num_frames: int, **values: Any) -> MotionContext:
    return MotionContext(torch.arange(num_frames, dtype=torch.float32), **values)


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    product = x @ weights[f"{name}.weight"].T
    return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product


def by_the_formula(module: TemporalMotionModule, x: Tensor, positions: Tensor) -> Tensor:
    weights = {name: value.double() for name, value in module.state_dict().items()}
    config, (b, f, h, w, c) = module.config, x.shape
    x = x.double()
    grouped = x.reshape(b, f, h, w, config.norm_groups, -1)
    axes = (2, 3, 5) if config.norm_scope == "frame" else (1, 2, 3, 5)
    centred = grouped - grouped.mean(axes, keepdim=True)
    hidden = (centred / (centred.square().mean(axes, keepdim=True) + 1e-6).sqrt()).reshape(x.shape)
    hidden = hidden * weights["norm.weight"] + weights["norm.bias"]
    hidden = linear(hidden, weights, "proj_in")
    encoded = torch.zeros(f, c, dtype=torch.float64)
    for i in range(0, c, 2):
        angle = positions.double() / 10_000 ** (i / c)
        encoded[:, i], encoded[:, i + 1] = angle.sin(), angle.cos()
    for block in range(config.num_blocks):
        prefix = f"transformer_blocks.{block}"
        for i in range(len(config.reaches)):
            attention = f"{prefix}.attention_blocks.{i}"
            normed = layer_norm(hidden, weights, f"{prefix}.norms.{i}") + encoded[:, None, None]
            q, k, v = (
                linear(normed, weights, f"{attention}.to_{n}").unflatten(-1, (config.num_heads, -1)) for n in "qkv"
            )
            scores = torch.einsum("bfhwnd,bghwnd->bhwnfg", q, k) / math.sqrt(c / config.num_heads)
            mixed = torch.einsum("bhwnfg,bghwnd->bfhwnd", scores.softmax(-1), v).flatten(-2)
            hidden = hidden + linear(mixed, weights, f"{attention}.to_out.0")
        value, gate = linear(
            layer_norm(hidden, weights, f"{prefix}.ff_norm"), weights, f"{prefix}.ff.net.0.proj"
        ).chunk(2, -1)
        gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
        hidden = hidden + linear(value * gelu, weights, f"{prefix}.ff.net.2")
    return x + linear(hidden, weights, "proj_out")


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


@pytest.mark.parametrize("scope", ["frame", "video"])
@pytest.mark.parametrize("grad", [True, False])
def test_equals_the_formula(make_module: Maker, scope: str, grad: bool) -> None:
    module = make_module(norm_scope=scope)
    x = features_of(2, 5, 3, 4, 16)
    positions = torch.tensor([0.0, 1.0, 2.5, 7.0, 40.0])
    with torch.set_grad_enabled(grad):
        found = module(x, MotionContext(positions))
    assert relative_error(found.detach(), by_the_formula(module, x, positions)) <= 1e-5


@pytest.mark.parametrize(("blocks", "attentions"), [(2, 2), (1, 1), (3, 1)])
def test_equals_the_formula_at_other_depths(make_module: Maker, blocks: int, attentions: int) -> None:
    module = make_module(num_blocks=blocks, attentions_per_block=attentions)
    x = features_of(1, 4, 2, 3, 16)
    with torch.no_grad():
        found = module(x, context_of(4))
    assert relative_error(found, by_the_formula(module, x, torch.arange(4))) <= 1e-5


def test_the_norm_scopes_differ(make_module: Maker) -> None:
    x = features_of(1, 4, 2, 2, 16) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1, 1)
    results = [make_module(norm_scope=scope)(x, context_of(4)) for scope in ("frame", "video")]
    assert relative_error(results[0].detach(), results[1].detach()) > 1e-2


@pytest.mark.parametrize("grad", [True, False])
def test_fresh_module_is_the_identity(make_module: Maker, grad: bool) -> None:
    x = features_of(2, 3, 4, 5, 16)
    with torch.set_grad_enabled(grad):
        assert torch.equal(make_module(fresh=True)(x, context_of(3)), x)


def test_gradients_reach_only_the_last_projection_of_a_fresh_module(make_module: Maker) -> None:
    module = make_module(fresh=True)
    module(features_of(1, 3, 2, 2, 16), context_of(3)).square().sum().backward()
    reached = {name for name, value in module.named_parameters() if value.grad is not None and value.grad.any()}
    assert reached == {"proj_out.weight", "proj_out.bias"}


def test_gradients_reach_every_parameter_and_the_input(make_module: Maker) -> None:
    module = make_module()
    x = features_of(1, 3, 2, 2, 16).requires_grad_()
    module(x, context_of(3)).square().sum().backward()
    unreached = [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]
    assert unreached == []
    assert x.grad is not None
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize("scope", ["frame", "video"])
def test_gradients_are_the_numerical_ones(make_module: Maker, scope: str) -> None:
    module = make_module(width=4, num_heads=2, norm_groups=2, norm_scope=scope).double()
    names, values = zip(*module.named_parameters(), strict=True)

    def run(features: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters, strict=True)), (features, context_of(3)))

    features = features_of(1, 3, 2, 1, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(run, (features, *values))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 16), (1, 1, 1, 1, 16), (1, 4, 1, 1, 16)])
def test_the_input_is_not_changed(make_module: Maker, grad: bool, shape: tuple[int, ...]) -> None:
    x, context = features_of(*shape), context_of(shape[1])
    kept, positions = x.clone(), context.frame_positions.clone()
    with torch.set_grad_enabled(grad):
        found = make_module()(x, context)
    assert torch.equal(x, kept)
    assert torch.equal(context.frame_positions, positions)
    assert not torch.equal(found, kept)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_path_without_gradients_gives_the_same(make_module: Maker, strength: float) -> None:
    module, x = make_module(), features_of(2, 4, 3, 3, 16)
    recorded = module(x, context_of(4, strength=strength)).detach()
    with torch.no_grad():
        plain = module(x, context_of(4, strength=strength))
    with torch.inference_mode():
        inference = module(x, context_of(4, strength=strength))
    assert relative_error(plain, recorded) <= 1e-6
    assert relative_error(inference, recorded) <= 1e-6


@pytest.mark.parametrize("grad", [True, False])
def test_strength_scales_what_is_added(make_module: Maker, grad: bool) -> None:
    module, x = make_module(), features_of(1, 4, 2, 2, 16)
    with torch.set_grad_enabled(grad):
        full, half, none = (module(x, context_of(4, strength=s)) for s in (1.0, 0.5, 0.0))
    assert none is x
    assert relative_error((half - x).detach(), (full - x).detach() / 2) <= 1e-5


@pytest.mark.parametrize("grad", [True, False])
def test_bfloat16_is_close_to_float32(make_module: Maker, grad: bool) -> None:
    module, x = make_module(), features_of(1, 6, 3, 3, 16).bfloat16()
    expected = module(x.float(), context_of(6)).detach()
    with torch.set_grad_enabled(grad):
        found = module.bfloat16()(x, context_of(6)).detach()
    assert found.dtype == torch.bfloat16
    assert relative_error(found, expected) <= 2e-2


def test_one_frame_is_allowed(make_module: Maker) -> None:
    module, x = make_module(), features_of(2, 1, 3, 3, 16)
    with torch.no_grad():
        found = module(x, context_of(1))
    assert relative_error(found, by_the_formula(module, x, torch.zeros(1))) <= 1e-5


def test_there_is_no_largest_number_of_frames(make_module: Maker) -> None:
    module, x = make_module(), features_of(1, 100, 1, 2, 16)
    with torch.no_grad():
        found = module(x, context_of(100))
    assert relative_error(found, by_the_formula(module, x, torch.arange(100))) <= 1e-5


def test_order_is_known_by_position_alone(make_module: Maker) -> None:
    module, x, order = make_module(), features_of(1, 5, 2, 2, 16), torch.tensor([3, 0, 4, 2, 1])
    positions = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        expected = module(x, MotionContext(positions))[:, order]
        found = module(x[:, order], MotionContext(positions[order]))
        in_place_order = module(x[:, order], MotionContext(positions))
    assert relative_error(found, expected) <= 1e-5
    assert relative_error(in_place_order, expected) > 1e-3


def test_places_and_videos_do_not_see_each_other(make_module: Maker) -> None:
    module, x = make_module(), features_of(2, 3, 2, 2, 16)
    with torch.no_grad():
        # Without the group norm's statistics, which are shared by the places of a frame.
        tokens = x.permute(0, 2, 3, 1, 4).reshape(8, 1, 3, 16)
        block, positions = module.transformer_blocks[0], sinusoidal_positions(torch.arange(3), 16)
        together = block(tokens.clone(), positions)
        apart = torch.cat([block(one.clone(), positions) for one in tokens.split(1)])
    assert relative_error(together, apart) <= 1e-5


@pytest.mark.parametrize("settings", [{"num_heads": 3}, {"norm_groups": 5}])
def test_heads_and_groups_must_divide_the_width(settings: dict[str, int]) -> None:
    config = replace(TemporalConfig(num_heads=4, norm_groups=4), **settings)
    with pytest.raises(ConfigError, match=rf"width 16 .*{config.num_heads} and {config.norm_groups}"):
        TemporalMotionModule(config, 16)


@pytest.mark.parametrize("grad", [True, False])
def test_compiles_without_graph_breaks(make_module: Maker, grad: bool) -> None:
    module, x = make_module(), features_of(1, 4, 2, 2, 16)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.set_grad_enabled(grad):
        found, expected = compiled(x, context_of(4)), module(x, context_of(4))
    torch.compiler.reset()
    assert relative_error(found.detach(), expected.detach()) <= 1e-6
