"""The pipeline that comes of a run, as it is handed out."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ConfigMixin
from torch import nn

from muybridge.files.new_folder import replaced_folder
from muybridge.pipelines import VideoPipeline


def publish_pipeline(pipeline: VideoPipeline, folder: Path, dtype: torch.dtype) -> Path:
    """Write a pipeline in a precision; a folder that is there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part, dtype)
        if isinstance(part, ConfigMixin):
            part.register_to_config(_name_or_path="")  # the run's folder means nothing to others and may name a user
    with replaced_folder(folder) as temporary:
        pipeline.save_pretrained(temporary)
    return folder
