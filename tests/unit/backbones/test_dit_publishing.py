"""A transformer in the original's layout: read again it is the same network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.publishing import published_config, write_published
from muybridge.errors import CheckpointError
from muybridge.motion import MotionAdapter, hybrid_preset
from muybridge.motion.hybrid import HybridConfig


def transformer(configs: tuple[HybridConfig, HybridConfig], **changes: Any) -> Transformer3DModel:
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 4,
        "sample_size": 8,
        "caption_channels": 16,
    }
    torch.manual_seed(0)
    model = Transformer3DModel(**{**settings, **changes})
    sites = list(model.motion_sites().values())
    parts = [MotionAdapter.for_sites(sites[index::2], "hybrid", config) for index, config in enumerate(configs)]
    modules = {name: module for part in parts for name, module in part.motion_modules()}
    adapter = MotionAdapter.of_modules({site.name: modules[site.name] for site in sites}, "easyanimate")
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.set_motion_adapter(adapter)
    return model.eval()


EVEN, ODD = (replace(hybrid_preset(f"easyanimate_v3_{name}"), num_heads=2) for name in ("even", "odd"))
V2 = replace(hybrid_preset("easyanimate_v2"), num_heads=2)


@pytest.mark.parametrize(
    ("configs", "changes"),
    [((EVEN, ODD), {}), ((V2, V2), {"in_channels": 4, "clip_channels": None}), ((EVEN, EVEN), {})],
)
def test_it_comes_back_the_same(configs: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    model = transformer(configs, **changes)

    again = Transformer3DModel.from_pretrained(write_published(model, tmp_path / "published"))

    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    latents = torch.randn(1, model.config["latent_channels"], 2, 8, 8)
    given = {} if model.config["in_channels"] == 4 else {"inpaint_latents": torch.randn(1, 8, 2, 8, 8)}
    with torch.no_grad():
        outputs = [each(latents, torch.tensor([3]), torch.ones(1, 3, 16), **given).sample for each in (model, again)]
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize(
    ("configs", "changes", "reason"),
    [
        ((EVEN, ODD), {"out_channels": 4}, "differs in latent_channels"),
        ((EVEN, ODD), {"clip_channels": 16}, "differs in clip_channels"),
    ],
)
def test_what_it_cannot_be(configs: Any, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        published_config(transformer(configs, **changes))


def test_modules_of_another_kind_are_refused() -> None:
    model = transformer((EVEN, ODD))
    model.remove_motion_adapter()
    with pytest.raises(CheckpointError, match="layer 0 has no motion module of the kind hybrid"):
        published_config(model)
