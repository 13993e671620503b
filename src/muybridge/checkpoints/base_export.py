"""An image model in one file written as the folder of a diffusers pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.base_models import base_model_from_weights
from muybridge.checkpoints.detect import detect_weights
from muybridge.checkpoints.lacking_parts import load_lacking
from muybridge.errors import CheckpointError
from muybridge.files.new_folder import check_new, new_model_folder
from muybridge.weights.loading import load_strictly

_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""Of Stable Diffusion 1.5 as it is published; a file does not say it."""


def write_base_folder(
    weights: Mapping[str, Tensor],
    source: str,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    parts_from: str | os.PathLike[str] | None = None,
) -> int:
    """Write Stable Diffusion 1.x from a single file as a folder that diffusers and this package open.

    The scheduler is that of Stable Diffusion 1.5, which predicts noise: a file does not say what its model predicts.

    Args:
        weights: all keys of the file.
        source: its name, for messages.
        target: a new folder.
        dtype: of the weights; None keeps every one as it is stored.
        parts_from: a folder or hub id with the tokenizer, and with the VAE or text encoder where the file lacks them;
            by default Stable Diffusion 1.5 on the hub.

    Returns:
        How many weights were written, of those in the file.

    Raises:
        CheckpointError: the file is something else or damaged, or a part is nowhere to be had.
        OutputError: `target` exists or cannot be written; nothing is left behind.
    """
    check_new(target)
    found = detect_weights(weights)
    if found.variant != "base-sd15":
        raise CheckpointError(f"{source} is {found.variant}; only Stable Diffusion 1.x can be written as a folder.")
    base = base_model_from_weights(weights, source, dtype=dtype)
    own = base.components()
    lacking = load_lacking(base, source, parts_from, dtype or base.unet.dtype)
    pipeline = StableDiffusionPipeline(
        **{**own, **lacking, "unet": image_unet(base.unet)},
        scheduler=PNDMScheduler(**_SCHEDULE),  # type: ignore[arg-type]  # of a class that its annotation does not list
        safety_checker=None,  # type: ignore[arg-type]  # optional, whatever its annotation says
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    with new_model_folder(target) as temporary:
        pipeline.save_pretrained(temporary)
    return sum(len(part.state_dict()) for part in own.values())


def image_unet(unet: UNet3DConditionModel) -> UNet2DConditionModel:
    """The image model that a U-Net is made of, as diffusers' class; the two share their weights.

    Raises:
        CheckpointError: the U-Net has motion modules, which diffusers' has no place for.
    """
    names = UNet2DConditionModel._get_init_keys(UNet2DConditionModel)
    with torch.device("meta"):
        image = UNet2DConditionModel(**{name: value for name, value in unet.config.items() if name in names})
    load_strictly(image, unet.state_dict(), "the U-Net", assign=True)
    return image.eval()
