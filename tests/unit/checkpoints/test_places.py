"""Weights given where those of another kind belong are told what they are, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.image_prompt_files import read_image_prompt_adapter
from muybridge.checkpoints.lora import read_lora
from muybridge.checkpoints.motion_export import write_motion
from muybridge.checkpoints.motion_files import read_motion
from muybridge.conditioning.sparse_control import read_sparse_control
from muybridge.errors import CheckpointError
from muybridge.motion import MotionAdapter
from muybridge.pipelines import load_pipeline

ONE = torch.ones(4, 4)
STATES: dict[str, dict[str, torch.Tensor]] = {
    "a LoRA": {"lora_unet_x.lora_up.weight": ONE, "lora_unet_x.lora_down.weight": ONE},
    "a VAE": {"encoder.conv_in.weight": ONE, "decoder.conv_in.weight": ONE, "quant_conv.weight": ONE},
    "an image model": {"model.diffusion_model.out.2.bias": ONE},
    "a ControlNet": {"controlnet_cond_embedding.conv_in.weight": ONE},
    "an IP-Adapter": {"image_proj.x": ONE, "ip_adapter.1.to_k_ip.weight": ONE},
}
READERS: dict[str, Callable[[Path], Any]] = {
    "a LoRA": read_lora,
    "a motion module": read_motion,
    "a SparseCtrl": lambda path: read_sparse_control(path, torch.float32),
    "an IP-Adapter": lambda path: read_image_prompt_adapter(path, UNet3DConditionModel(block_out_channels=(32,) * 4)),
    "an image model": load_pipeline,
}


@pytest.mark.parametrize("wanted", READERS)
@pytest.mark.parametrize("what", [*STATES, "a motion module"])
def test_the_place_is_named(make_adapter: Callable[..., MotionAdapter], tmp_path: Path, wanted: str, what: str) -> None:
    if what == wanted:
        return
    path = tmp_path / "v3_sd15_mm.safetensors"
    if what in STATES:
        save_file({key: value.clone() for key, value in STATES[what].items()}, path)
    else:
        write_motion(make_adapter(1), path, "original")
    with pytest.raises(CheckpointError, match=rf"not {wanted}\. It is {what}; its place is .*--"):
        READERS[wanted](path)
