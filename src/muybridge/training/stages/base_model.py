"""The model that a stage of training builds on."""

from __future__ import annotations

from pathlib import Path

from diffusers import DDIMScheduler

from muybridge.checkpoints import locate_model
from muybridge.errors import ConfigError
from muybridge.pipelines import AnimateDiffPipeline, VideoPipeline, load_pipeline


def check_base(model: str) -> None:
    """Whether a model to build on is there, without loading it.

    Raises:
        CheckpointError: it is not.
    """
    if not Path(model).is_file():
        locate_model(model)


def load_base(model: str) -> VideoPipeline:
    """Load a shipped model, a folder, or a hub id, as something to train on.

    Raises:
        ConfigError: a model of Stable Diffusion XL.
        CheckpointError: it cannot be loaded.
    """
    base = load_pipeline(model)
    if isinstance(base, AnimateDiffPipeline) and base.is_sdxl:
        raise ConfigError(f"{model} is Stable Diffusion XL, which is not trained here; give base a 1.5 model.")
    return base


def load_unet_base(model: str) -> AnimateDiffPipeline:
    """Likewise, for what goes beside a U-Net only.

    Raises:
        ConfigError: a model with a transformer, or of Stable Diffusion XL.
        CheckpointError: it cannot be loaded.
    """
    base = load_base(model)
    if not isinstance(base, AnimateDiffPipeline):
        raise ConfigError(f"{model} has a transformer, and a SparseCtrl is for models with a U-Net; give base another.")
    return base


def training_scheduler(base: VideoPipeline) -> DDIMScheduler:
    """The noise levels of a model, whatever solver it runs with."""
    return DDIMScheduler.from_config(base.scheduler.config)  # type: ignore[return-value]
