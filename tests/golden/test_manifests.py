"""The names of the full-size models, on the meta device: nothing missing, nothing left over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.motion import MotionAdapter
from muybridge.motion.keys import ORIGINAL_MOTION_KEYS, describe_motion_file
from muybridge.weights.keymap import apply_key_map

FOLDER = Path(__file__).parents[3] / "shared" / "golden"


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_full_size_names_and_shapes(version: str) -> None:
    path = FOLDER / f"animatediff_unet_{version}_manifest.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    manifest = json.loads(path.read_text())
    with torch.device("meta"):
        motion = {k: torch.empty(shape) for k, shape in manifest["motion_keys"].items()}
        tables = {k: torch.empty(shape) for k, shape in manifest["pos_encoder_keys_seen_in_old_checkpoints"].items()}
        found = {f"module.{k}": v for k, v in (motion | tables).items()}
        state = apply_key_map(ORIGINAL_MOTION_KEYS, found)
        described = describe_motion_file(found, state, num_heads=8)
        unet = UNet3DConditionModel()
        sites = [site for site in unet.motion_sites().values() if site.name in described.modules]
        adapter = MotionAdapter.for_sites(sites)
        unet.set_motion_adapter(adapter)
    assert described.numerics == f"official-{version}"
    assert {k: v.shape for k, v in adapter.state_dict().items()} == {k: v.shape for k, v in state.items()}
    unet.remove_motion_adapter()
    image = {k: list(v.shape) for k, v in unet.state_dict().items()}
    assert image == manifest["image_keys"]
    assert sum(p.numel() for p in adapter.parameters()) == manifest["n_motion_parameters"]
