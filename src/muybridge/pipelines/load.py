"""One call for any model: the family is read from the folder."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from muybridge.checkpoints import locate_model, read_model_index
from muybridge.checkpoints.easyanimate import is_published_folder
from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion import MotionAdapter
from muybridge.pipelines.animatediff import AnimateDiffPipeline
from muybridge.pipelines.easyanimate import EasyAnimatePipeline
from muybridge.sampling import make_scheduler

_PIPELINES = {"AnimateDiffPipeline": AnimateDiffPipeline}


def load_pipeline(
    model: str | os.PathLike[str] = "demo/animatediff",
    torch_dtype: torch.dtype = torch.float32,
    motion_adapter: str | os.PathLike[str] | None = None,
) -> AnimateDiffPipeline | EasyAnimatePipeline:
    """Load a pipeline on the CPU; `.to(device)` moves it.

    Args:
        model: a shipped demo ("demo/animatediff"), a folder, or a hub id. With `motion_adapter`, a Stable Diffusion 1.5
            folder too, which then runs with AnimateDiff's DDIM settings.
        torch_dtype: of all networks.
        motion_adapter: the folder of an adapter, or a motion module file in the original's format, to use instead of
            the model's own.

    Raises:
        CheckpointError: no such model or adapter, a family that is not known, or parts that are missing or damaged.
        ConfigError: the adapter is for another backbone.
    """
    folder = locate_model(model)
    if is_published_folder(folder) or read_model_index(folder).get("_class_name") == "EasyAnimatePipeline":
        if motion_adapter is not None:
            raise ConfigError("An EasyAnimate model has its motion modules in itself; leave motion_adapter out.")
        return EasyAnimatePipeline.from_pretrained(model, torch_dtype=torch_dtype)
    family = str(read_model_index(folder).get("_class_name"))
    parts = {}
    if motion_adapter is not None:
        parts["motion_adapter"] = _load_adapter(Path(motion_adapter), torch_dtype)
    if family == "StableDiffusionPipeline" and parts:
        parts["scheduler"] = make_scheduler("ddim")
    elif family not in _PIPELINES:
        raise CheckpointError(
            f"{folder} is a {family}; supported: {', '.join(_PIPELINES)}, and StableDiffusionPipeline together with a "
            "motion adapter."
        )
    pipeline = _PIPELINES.get(family, AnimateDiffPipeline).from_pretrained(folder, torch_dtype=torch_dtype, **parts)
    pipeline.model_name = str(model)
    pipeline.motion_adapter_name = None if motion_adapter is None else str(motion_adapter)
    return pipeline


def _load_adapter(path: Path, dtype: torch.dtype) -> MotionAdapter:
    if path.is_dir():
        return MotionAdapter.from_pretrained(path, torch_dtype=dtype)
    adapter = MotionAdapter.from_single_file(path)
    nn.Module.to(adapter, dtype)
    return adapter
