"""The model that a stage of training builds on."""

from __future__ import annotations

from pathlib import Path

from diffusers import DDIMScheduler

from muybridge.checkpoints import locate_model
from muybridge.errors import ConfigError
from muybridge.pipelines import VideoPipeline, load_pipeline
from muybridge.pipelines.family import Training
from muybridge.training.data import UsualClip
from muybridge.training.methods.denoise import TrainedNetworks
from muybridge.types import VideoShape

_SIZE = (512, 512)
"""Height and width where a model does not say."""


def check_base(model: str) -> None:
    """Whether a model to build on is there, without loading it.

    Raises:
        CheckpointError: it is not.
    """
    if not Path(model).is_file():
        locate_model(model)


def load_base(model: str) -> tuple[VideoPipeline, Training]:
    """Load a shipped model, a folder, or a hub id, as something to train on; and how its family is trained.

    Raises:
        ConfigError: a model that is not trained here.
        CheckpointError: it cannot be loaded.
    """
    base = load_pipeline(model)
    how = base.family.training
    if how is None:
        raise ConfigError(f"{model} is a {base.family.name}, which is not trained here; give base another model.")
    try:
        how.check(networks_of(base))
    except ConfigError as error:
        raise ConfigError(f"{model}: {error}") from error
    return base, how


def networks_of(base: VideoPipeline) -> TrainedNetworks:
    """What of a model training runs."""
    return TrainedNetworks(base.backbone, base.text_encoder, base.vae)


def usual_clip(base: VideoPipeline) -> UsualClip:
    """What a model makes by default."""
    height, width = base.usual_size or _SIZE
    return UsualClip(VideoShape(base.frames_at_once, height, width), base.frames_per_second, base.size_multiple)


def training_scheduler(base: VideoPipeline) -> DDIMScheduler:
    """The noise levels of a model, whatever solver it runs with."""
    return DDIMScheduler.from_config(base.scheduler.config)  # type: ignore[return-value]
