"""The model that a stage of training builds on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DDIMScheduler

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints import locate_model
from muybridge.errors import ConfigError
from muybridge.pipelines import VideoPipeline, load_pipeline
from muybridge.pipelines.families import family_of_folder
from muybridge.pipelines.family import Training, Wishes
from muybridge.request import ModelChoice
from muybridge.training.base_place import place_of_base
from muybridge.training.data import BatchSource, ClipsWanted, TrainingData, UsualClip
from muybridge.training.latent_cache import CaptionEncoder, ClipEncoder
from muybridge.training.methods.denoise import TrainedNetworks
from muybridge.training.stages.stage import Stage
from muybridge.types import VideoShape

_SIZE = (512, 512)
"""Height and width where a model does not say."""


def check_base(model: str) -> None:
    """Whether a model to build on is there, without loading it.

    Raises:
        CheckpointError: it is not.
    """
    place_of_base(model)


def load_base(
    model: str, motion_adapter: str | None = None, needs_motion: bool = True
) -> tuple[VideoPipeline, Training]:
    """Load a shipped model, a folder, or a hub id, as something to train on; and how its family is trained.

    Args:
        model: what to load.
        motion_adapter: file or folder of motion modules in place of its own, as `load_pipeline` takes it.
        needs_motion: False to take an image model too, which then has no motion modules.

    Raises:
        ConfigError: a model that is not trained here.
        CheckpointError: it cannot be loaded.
    """
    base = _loaded(model, motion_adapter, needs_motion)
    how = base.family.training
    if how is None:
        raise ConfigError(f"{model} is a {base.family.name}, which is not trained here; give base another model.")
    try:
        how.check(networks_of(base))
    except ConfigError as error:
        raise ConfigError(f"{model}: {error}") from error
    return base, how


def _loaded(model: str, motion_adapter: str | None, needs_motion: bool) -> VideoPipeline:
    if needs_motion or motion_adapter is not None or Path(model).is_file():
        return load_pipeline(model, motion_adapter=motion_adapter)
    place = locate_model(model)
    found = family_of_folder(place)
    return found.family.load(Wishes(found.family, ModelChoice(model=model), place), torch.float32)


def networks_of(base: VideoPipeline) -> TrainedNetworks:
    """What of a model training runs."""
    components = base.components
    encoder, processor = (components.get(name) for name in ("image_encoder", "image_processor"))
    return TrainedNetworks(base.backbone, base.text_encoder, base.vae, encoder, processor)


def usual_clip(base: VideoPipeline) -> UsualClip:
    """What a model makes by default."""
    height, width = base.usual_size or _SIZE
    return UsualClip(VideoShape(base.frames_at_once, height, width), base.frames_per_second, base.size_multiple)


def wanted_clips(
    base: VideoPipeline,
    stage: Stage,
    caption_dropout: float,
    num_frames: int | None = None,
    cached_by: Training | None = None,
    keeps_text: bool = True,
) -> ClipsWanted:
    """What a stage asks of its clips, with what the model makes by default.

    Args:
        base: the model.
        stage: has the size of a batch, and a seed.
        caption_dropout: share of captions left empty.
        num_frames: of a clip at a time; None for whole clips.
        cached_by: how the family encodes clips, for stages that can take them from a cache.
        keeps_text: whether the text encoder stays as it is, so that captions can be taken from there too.
    """
    networks = networks_of(base)
    encoder = None if cached_by is None else ClipEncoder(networks, cached_by)
    of_text = cached_by.text if cached_by is not None and keeps_text else None
    text = None if of_text is None else CaptionEncoder(networks, of_text)
    return ClipsWanted(
        stage.batch_size,
        stage.seed,
        base.tokenizer,
        caption_dropout,
        num_frames,
        usual=usual_clip(base),
        encoder=encoder,
        text=text,
    )


def training_scheduler(base: VideoPipeline) -> DDIMScheduler:
    """The noise levels of a model, whatever solver it runs with."""
    return DDIMScheduler.from_config(base.scheduler.config)  # type: ignore[return-value]


def require_unet(base: VideoPipeline, model: str, what: str) -> UNet3DConditionModel:
    """The U-Net of a model.

    Raises:
        ConfigError: it has a transformer, and `what` is for models with a U-Net.
    """
    if not isinstance(base.backbone, UNet3DConditionModel):
        raise ConfigError(f"{model} has a transformer, and {what} is for models with a U-Net; give base another.")
    return base.backbone


def clips_for(
    data: TrainingData, wanted: ClipsWanted, how: Training, model: str, whole_clip_share: float | None = None
) -> BatchSource:
    """Clips as a family is trained on.

    Args:
        data: the set of clips.
        wanted: of it; without `num_frames`, as the family usually has them.
        how: the family is trained.
        model: its name, for messages.
        whole_clip_share: share of batches with whole clips, the family's usual one if not given.

    Raises:
        ConfigError: frames or shares for a family that sees whole clips only.
    """
    if how.frames is None:
        if wanted.num_frames is not None or whole_clip_share is not None:
            raise ConfigError(f"{model} is trained on whole clips; leave num_frames and whole_clip_share out.")
        return data.whole_clips(wanted)
    share = how.whole_clip_share if whole_clip_share is None else whole_clip_share
    return data.clips(replace(wanted, num_frames=wanted.num_frames or how.frames, whole_clip_share=share))
