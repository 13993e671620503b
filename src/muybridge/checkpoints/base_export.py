"""An image model in one file written as the folder of a diffusers pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.base_models import base_model_from_weights
from muybridge.checkpoints.detect import detect_weights
from muybridge.checkpoints.lacking_parts import load_lacking
from muybridge.checkpoints.prediction import Prediction, without_marks
from muybridge.errors import CheckpointError
from muybridge.files.new_folder import check_new, new_model_folder
from muybridge.types import SettingsDict
from muybridge.weights.loading import load_strictly

_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
"""Noise levels of Stable Diffusion 1.5 as it is published; a file does not say them."""


def write_base_folder(
    weights: Mapping[str, Tensor],
    source: str,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    parts_from: str | os.PathLike[str] | None = None,
    prediction: Prediction | None = None,
) -> int:
    """Write Stable Diffusion 1.x from a single file as a folder that diffusers and this package open.

    The scheduler is that of Stable Diffusion 1.5, predicting what the model does.

    Args:
        weights: all keys of the file.
        source: its name, for messages.
        target: a new folder.
        dtype: of the weights; None keeps every one as it is stored.
        parts_from: a folder or hub id with the tokenizer, and with the VAE or text encoder where the file lacks them;
            by default Stable Diffusion 1.5 on the hub.
        prediction: what the model predicts, see `prediction_of_file`; noise by default.

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
    base = base_model_from_weights(without_marks(weights), source, dtype=dtype)
    own = base.components()
    lacking = load_lacking(base, source, parts_from, dtype or base.unet.dtype)
    pipeline = StableDiffusionPipeline(
        **{**own, **lacking, "unet": image_unet(base.unet)},
        scheduler=_scheduler(prediction or Prediction()),  # type: ignore[arg-type]  # its annotation lists a few classes
        safety_checker=None,  # type: ignore[arg-type]  # optional, whatever its annotation says
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    with new_model_folder(target) as temporary:
        pipeline.save_pretrained(temporary)
    return sum(len(part.state_dict()) for part in own.values())


def _scheduler(prediction: Prediction) -> PNDMScheduler | DDIMScheduler:
    """As published with Stable Diffusion 1.5; where that solver cannot run the model, another of its noise levels."""
    settings: SettingsDict = {**_SCHEDULE, **prediction.settings()}
    if prediction.zero_snr:
        return DDIMScheduler(**settings, clip_sample=False, timestep_spacing="trailing")
    if prediction.type == "sample":
        return DDIMScheduler(**settings, clip_sample=False)
    del settings["rescale_betas_zero_snr"]
    return PNDMScheduler(**settings, skip_prk_steps=True)


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
