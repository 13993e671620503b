"""The kind `hybrid`, and what the transformer kinds do a piece at a time."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.motion import HybridConfig, HybridMotionModule, MotionContext, hybrid_preset
from muybridge.motion import pieces as piece_sizes

WIDTH = 32


def make_module(*attentions: str) -> HybridMotionModule:
    torch.manual_seed(0)
    module = HybridMotionModule(HybridConfig(num_heads=2, attentions=attentions), WIDTH)  # type: ignore[arg-type]
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def run(module: HybridMotionModule, features: Tensor) -> Tensor:
    with torch.no_grad():
        return module(features, MotionContext(torch.arange(features.shape[1]).float()))


def features_of(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_fresh_modules_are_the_identity() -> None:
    features = features_of(1, 3, 2, 2, WIDTH)
    assert torch.equal(run(HybridMotionModule(HybridConfig(num_heads=2), WIDTH), features), features)


@pytest.mark.parametrize(("attentions", "reaches_far"), [(("temporal",), False), (("temporal", "global"), True)])
def test_only_global_attention_joins_places(attentions: tuple[str, ...], reaches_far: bool) -> None:
    module = make_module(*attentions)
    tokens = features_of(1, 4, 3, WIDTH)  # [b, places, f, c], past the norm whose statistics all places share
    changed = tokens.clone()
    changed[:, 0] = features_of(3, WIDTH) * 2  # a shift alone would not pass the layer norms
    with torch.no_grad():
        block, positions = module.transformer_blocks[0], torch.zeros(3, WIDTH)
        before, after = block(tokens.clone(), positions), block(changed, positions)
    assert torch.allclose(before[:, 1:], after[:, 1:], atol=1e-6) is not reaches_far


@pytest.mark.parametrize("attentions", [("temporal", "temporal"), ("temporal", "global"), ("global",)])
@pytest.mark.parametrize("batch", [1, 2])
def test_pieces_change_nothing(attentions: tuple[str, ...], batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, features = make_module(*attentions), features_of(batch, 3, 4, 5, WIDTH)
    whole = run(module, features)
    monkeypatch.setattr(piece_sizes, "PIECE_TOKENS", 13)
    in_pieces = run(module, features)
    with_gradient = module(features, MotionContext(torch.arange(3).float())).detach()
    assert float((whole - in_pieces).abs().max() / whole.abs().max()) <= 1e-5
    assert float((whole - with_gradient).abs().max() / whole.abs().max()) <= 1e-5


def test_batch_items_do_not_leak() -> None:
    module, features = make_module("temporal", "global"), features_of(2, 3, 2, 2, WIDTH)
    assert torch.allclose(run(module, features)[1], run(module, features[1:])[0], atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    module, features = make_module("temporal", "global"), features_of(1, 3, 2, 2, WIDTH)
    module(features, MotionContext(torch.arange(3).float())).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def test_presets_come_back_from_json() -> None:
    for name in ("easyanimate_v3_even", "easyanimate_v3_odd", "easyanimate_v2"):
        preset = hybrid_preset(name)
        assert HybridConfig(**json.loads(json.dumps(preset.to_dict()))) == preset
    assert hybrid_preset("easyanimate_v2").num_heads == 8
    assert hybrid_preset("easyanimate_v3_odd").reaches == ("temporal", "global")


@pytest.mark.parametrize("attentions", [(), ("spatial",)])
def test_unknown_attentions_are_refused(attentions: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="temporal, global"):
        HybridConfig(attentions=attentions)  # type: ignore[arg-type]


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="easyanimate_v3_odd"):
        hybrid_preset("v9")
