"""The parts of a pipeline folder, each loaded whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def part_folder(folder: Path, name: str) -> Path:
    """The folder of a part.

    Raises:
        CheckpointError: it is missing.
    """
    # A missing folder must not be taken for the name of a repository on the hub.
    if not (folder / name).is_dir():
        raise CheckpointError(
            f"{folder / name} is missing; a pipeline has a folder for each part. Get the model again."
        )
    return folder / name


def load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    """The image VAE in `folder/vae`."""
    return load_folder(
        AutoencoderKL.from_pretrained, part_folder(folder, "vae"), "AutoencoderKL", {"torch_dtype": dtype}
    )


def load_text_encoder(folder: Path, dtype: torch.dtype) -> CLIPTextModel:
    """The CLIP text encoder in `folder/text_encoder`."""
    path = part_folder(folder, "text_encoder")
    return load_folder(CLIPTextModel.from_pretrained, path, "CLIPTextModel", {"dtype": dtype})


def load_unet(folder: Path, dtype: torch.dtype) -> UNet3DConditionModel:
    """The U-Net in `folder/unet`: an image model of diffusers', or a video model saved by this package."""
    path = part_folder(folder, "unet")
    config = path / "config.json"
    options = {"torch_dtype": dtype}
    if config.is_file() and b"UNet3DConditionModel" in config.read_bytes():
        return UNet3DConditionModel.from_pretrained(path, **options)
    return UNet3DConditionModel.from_unet2d(
        load_folder(UNet2DConditionModel.from_pretrained, path, "UNet2DConditionModel", options)
    )


def load_motion_adapter(folder: Path, dtype: torch.dtype) -> MotionAdapter:
    """The motion adapter in `folder/motion_adapter`."""
    return MotionAdapter.from_pretrained(part_folder(folder, "motion_adapter"), torch_dtype=dtype)


def load_tokenizer(folder: Path, index: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder/tokenizer`, of the class that the `model_index.json` names."""
    return load_named(transformers, PreTrainedTokenizerBase, folder, "tokenizer", index)


def load_scheduler(folder: Path, index: Mapping[str, Any]) -> SchedulerMixin:
    """The scheduler in `folder/scheduler`, of the class that the `model_index.json` names."""
    return load_named(diffusers, SchedulerMixin, folder, "scheduler", index)


def load_named(library: Any, base: type, folder: Path, name: str, index: Mapping[str, Any]) -> Any:
    """The part in `folder/name`, of the class of `library` that the `model_index.json` names: one that is a `base`."""
    path = part_folder(folder, name)
    entry = index.get(name)
    class_name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    found = getattr(library, class_name, None) if isinstance(class_name, str) else None
    if not isinstance(found, type) or not issubclass(found, base):
        raise CheckpointError(
            f"model_index.json of {folder} must name a {base.__name__} of {library.__name__} for {name}, "
            f"as [library, class]; it has {entry!r}."
        )
    try:
        return found.from_pretrained(path)  # type: ignore[attr-defined]
    except Exception as error:  # a damaged tokenizer is a bare Exception of the tokenizers library
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{class_name} cannot be loaded from {path}: {reason}") from error
