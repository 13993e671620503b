"""The names of the full-size models, on the meta device: nothing missing, nothing left over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.detect import detect_weights
from muybridge.checkpoints.motion_export import diffusers_config, diffusers_weights, original_weights
from muybridge.motion import MotionAdapter
from muybridge.motion.reading import MotionPlan, plan_motion

FOLDER = Path(__file__).parents[3] / "shared" / "golden"
FRAMES = {"v1": 24, "v2": 32, "v3": 32}


def manifest(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    return json.loads(path.read_text())


def empty(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def motion_file(version: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    described = manifest(f"animatediff_unet_{version}_manifest")
    return described, empty(described["motion_keys"] | described["pos_encoder_keys_seen_in_old_checkpoints"])


def planned(found: Mapping[str, Tensor], name: str = "") -> tuple[MotionPlan, MotionAdapter]:
    plan = plan_motion(found, name)
    with torch.device("meta"):
        return plan, MotionAdapter(plan.modules_by_site, numerics=plan.variant.numerics)


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize("of_training", [False, True])
def test_full_size_names_and_shapes(version: str, of_training: bool) -> None:
    described, found = motion_file(version)
    if of_training:  # a whole network, as it was wrapped for several processes
        found = {f"module.{key}": value for key, value in (empty(described["image_keys"]) | found).items()}
    plan, adapter = planned(found, f"checkpoint_{version}.ckpt")
    assert shapes_of(plan.weights) == shapes_of(adapter.state_dict())
    assert plan.variant.name == f"animatediff-{version}"
    assert adapter.numerics == f"official-{version}"
    assert adapter.trained_frames == FRAMES[version]
    assert sum(p.numel() for p in adapter.parameters()) == described["n_motion_parameters"]
    with torch.device("meta"):
        unet = UNet3DConditionModel()
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == described["image_keys"]
    unet.set_motion_adapter(adapter)
    assert unet.motion_adapter is adapter


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_full_size_files_are_written_with_the_same_names(version: str) -> None:
    _, found = motion_file(version)
    _, adapter = planned(found, f"checkpoint_{version}.ckpt")
    assert shapes_of(original_weights(adapter)) == shapes_of(found)
    with torch.device("meta"):
        theirs = diffusers.MotionAdapter(**diffusers_config(adapter))
    written = diffusers_weights(adapter)
    assert shapes_of(written) == shapes_of(theirs.state_dict())
    plan, again = planned(written, f"checkpoint_{version}.ckpt")
    assert shapes_of(plan.weights) == shapes_of(again.state_dict()) == shapes_of(adapter.state_dict())


def test_the_sdxl_beta_module() -> None:
    with torch.device("meta"):
        theirs = diffusers.MotionAdapter(block_out_channels=(320, 640, 1280), use_motion_mid_block=False)
    plan, adapter = planned(theirs.state_dict())
    assert plan.variant.name == "animatediff-sdxl"
    assert shapes_of(plan.weights) == shapes_of(adapter.state_dict())
    assert sum(p.numel() for p in adapter.parameters()) == 236_779_200
    written = original_weights(adapter)
    assert len([key for key in written if not key.endswith(".pe")]) == 15 * 26
    assert detect_weights(written, "x.ckpt").variant == "animatediff-sdxl"


@pytest.mark.parametrize(
    ("name", "keys", "variant"),
    [
        ("animatediff_sparsectrl_image_condition_manifest", "keys", "sparsectrl-scribble"),
        ("animatediff_sparsectrl_latent_condition_manifest", "keys", "sparsectrl-rgb"),
        ("easyanimate_v3_transformer_manifest", "keys", "easyanimate-transformer"),
        ("easyanimate_v3_transformer_manifest_t2v_in4_sample64", "keys", "easyanimate-transformer"),
        ("easyanimate_v3_vae_manifest", "keys", "easyanimate-vae"),
    ],
)
def test_what_the_other_files_are(name: str, keys: str, variant: str) -> None:
    shapes = manifest(name)[keys]
    assert detect_weights(empty(shapes)).variant == variant
    assert detect_weights(empty({f"module.{key}": shape for key, shape in shapes.items()})).variant == variant


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_what_the_motion_files_are(version: str) -> None:
    _, found = motion_file(version)
    names = {"v1": "mm_sd_v15.ckpt", "v2": "mm_sd_v15_v2.ckpt", "v3": "v3_sd15_mm.ckpt"}
    for name in ("", names[version]):
        detected = detect_weights(found, name)
        assert (detected.kind, detected.variant) == ("motion-module", f"animatediff-{version}")
