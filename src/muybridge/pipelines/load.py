"""One call for any model: the family is read from the folder."""

from __future__ import annotations

import os

import torch

from muybridge.checkpoints import locate_model, read_model_index
from muybridge.errors import CheckpointError
from muybridge.pipelines.animatediff import AnimateDiffPipeline

_PIPELINES = {"AnimateDiffPipeline": AnimateDiffPipeline}


def load_pipeline(
    model: str | os.PathLike[str] = "demo/animatediff", torch_dtype: torch.dtype = torch.float32
) -> AnimateDiffPipeline:
    """Load a pipeline on the CPU; `.to(device)` moves it.

    Args:
        model: a shipped demo ("demo/animatediff"), a folder, or a hub id.
        torch_dtype: of all networks.

    Raises:
        CheckpointError: no such model, a family that is not known, or parts that are missing or damaged.
    """
    folder = locate_model(model)
    family = str(read_model_index(folder).get("_class_name"))
    if family not in _PIPELINES:
        raise CheckpointError(
            f"{folder} is a {family}; supported: {', '.join(_PIPELINES)}. A Stable Diffusion 1.5 model is opened with "
            "AnimateDiffPipeline.from_pretrained, and a motion adapter for it."
        )
    pipeline = _PIPELINES[family].from_pretrained(folder, torch_dtype=torch_dtype)
    pipeline.model_name = str(model)
    return pipeline
