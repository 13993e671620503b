"""The parts of a pipeline folder, each loaded whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import CheckpointError
from muybridge.motion import MotionAdapter
from muybridge.weights.loading import load_folder


def read_model_index(folder: Path) -> dict[str, Any]:
    """The `model_index.json` of a pipeline folder.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no model_index.json; it is not the folder of a pipeline.")
    try:
        index = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from error
    if not isinstance(index, dict):
        raise CheckpointError(f"{path} must be a JSON object.")
    return index


def load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    """The image VAE in `folder/vae`."""
    return load_folder(AutoencoderKL.from_pretrained, folder / "vae", "AutoencoderKL", {"torch_dtype": dtype})


def load_text_encoder(folder: Path, dtype: torch.dtype) -> CLIPTextModel:
    """The CLIP text encoder in `folder/text_encoder`."""
    return load_folder(CLIPTextModel.from_pretrained, folder / "text_encoder", "CLIPTextModel", {"dtype": dtype})


def load_unet(folder: Path, dtype: torch.dtype) -> UNet3DConditionModel:
    """The U-Net in `folder/unet`: an image model of diffusers', or a video model saved by this package."""
    path = folder / "unet"
    config = path / "config.json"
    options = {"torch_dtype": dtype}
    if config.is_file() and "UNet3DConditionModel" in config.read_text():
        return UNet3DConditionModel.from_pretrained(path, **options)
    return UNet3DConditionModel.from_unet2d(
        load_folder(UNet2DConditionModel.from_pretrained, path, "UNet2DConditionModel", options)
    )


def load_motion_adapter(folder: Path, dtype: torch.dtype) -> MotionAdapter:
    """The motion adapter in `folder/motion_adapter`."""
    return MotionAdapter.from_pretrained(folder / "motion_adapter", torch_dtype=dtype)


def load_tokenizer(folder: Path, class_name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder/tokenizer`."""
    return _load_named(transformers, class_name, PreTrainedTokenizerBase, folder / "tokenizer")


def load_scheduler(folder: Path, class_name: str) -> SchedulerMixin:
    """The scheduler in `folder/scheduler`."""
    return _load_named(diffusers, class_name, SchedulerMixin, folder / "scheduler")


def _load_named(library: Any, class_name: str, base: type, folder: Path) -> Any:
    found = getattr(library, class_name, None)
    if not isinstance(found, type) or not issubclass(found, base):
        raise CheckpointError(f"{folder} wants {class_name!r}, which is not a {base.__name__} of {library.__name__}.")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing.")
    try:
        return found.from_pretrained(folder)  # type: ignore[attr-defined]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{class_name} cannot be loaded from {folder}: {reason}") from error
