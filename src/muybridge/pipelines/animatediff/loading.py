"""An AnimateDiff pipeline of a folder or a single file, with what is wished for in place of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from muybridge.checkpoints import parts, read_model_index
from muybridge.checkpoints.base_models import base_model_from_weights, precision_of_parts
from muybridge.checkpoints.lacking_parts import load_lacking
from muybridge.checkpoints.motion_files import LoadedMotion, read_motion
from muybridge.checkpoints.places import require_kind
from muybridge.checkpoints.prediction import (
    Prediction,
    prediction_of_file,
    prediction_of_scheduler,
    without_marks,
)
from muybridge.checkpoints.unet_kinds import check_motion_fits, unet_kind
from muybridge.checkpoints.vae_files import own_vae_settings, read_vae
from muybridge.errors import CheckpointError
from muybridge.motion.variants import MotionVariant
from muybridge.pipelines.animatediff.pipeline import AnimateDiffPipeline
from muybridge.pipelines.animatediff.recognising import recognised_folder
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.predicting import predict_as_asked
from muybridge.sampling.schedulers import Scheduler, make_plain_scheduler
from muybridge.types import SettingsDict
from muybridge.weights.files import read_metadata, read_weights


def load(wishes: Wishes, dtype: torch.dtype) -> AnimateDiffPipeline:
    """Load it on the CPU, all networks in a precision.

    Raises:
        MuybridgeError: as `load_pipeline`.
    """
    motion = None
    if wishes.choice.motion_adapter is not None:
        motion = read_motion(wishes.choice.motion_adapter, dtype=dtype, variant=wishes.choice.motion_variant)
    make = _from_file if wishes.place.is_file() else _from_folder
    return make(wishes, motion, dtype)


def _from_folder(wishes: Wishes, motion: LoadedMotion | None, dtype: torch.dtype) -> AnimateDiffPipeline:
    folder, name = wishes.place, wishes.choice.model
    index, settings = read_model_index(folder), parts.unet_settings(folder)
    components: SettingsDict = {}
    if motion is not None:
        if settings:  # without them, loading says what is missing
            check_motion_fits(settings, motion, name, _motion_name(wishes))
        components["motion_adapter"] = motion.adapter
    if wishes.choice.vae is not None:
        is_sdxl = unet_kind(settings) == "sdxl"
        components["vae"] = read_vae(wishes.choice.vae, dtype, own=own_vae_settings(folder), is_sdxl=is_sdxl)
    recognised = recognised_folder(folder, index)
    makes_videos = recognised is not None and recognised.makes_videos
    chosen = motion if motion is not None and (not makes_videos or motion.variant.distilled) else None
    if chosen is not None:
        scheduler: Any = parts.load_scheduler(folder, index)
        prediction = prediction_of_scheduler(scheduler.config, name, wishes.prediction)
        components["scheduler"] = _scheduler(chosen.variant, prediction)
    pipeline = AnimateDiffPipeline.from_pretrained(folder, torch_dtype=dtype, **components)
    if chosen is not None:
        pipeline.register_to_config(**_defaults(chosen.variant))
    else:
        predict_as_asked(pipeline, wishes.prediction, name)
    return pipeline


def _from_file(wishes: Wishes, motion: LoadedMotion | None, dtype: torch.dtype) -> AnimateDiffPipeline:
    path = wishes.place
    state = read_weights(path, precision_of_parts(dtype))
    require_kind(state, "base-model", str(path), path.name)
    if motion is None:
        raise CheckpointError(f"{path} makes still pictures; give a motion adapter too, and it makes videos.")
    prediction = prediction_of_file(state, read_metadata(path), str(path), wishes.prediction)
    base = base_model_from_weights(without_marks(state), str(path), dtype=dtype)
    check_motion_fits(base.unet.config, motion, str(path), _motion_name(wishes))
    present: SettingsDict = base.components()
    if wishes.choice.vae is not None:
        own = None if base.vae is None else dict(base.vae.config)
        present["vae"] = read_vae(wishes.choice.vae, dtype, own=own, is_sdxl=base.variant == "base-sdxl")
    return AnimateDiffPipeline(
        **present,
        **load_lacking(base, str(path), wishes.choice.parts_from, dtype, present),
        scheduler=_scheduler(motion.variant, prediction),  # type: ignore[arg-type]  # a protocol of what is used
        motion_adapter=motion.adapter,
        **_defaults(motion.variant),
    )


def _motion_name(wishes: Wishes) -> str:
    return Path(wishes.choice.motion_adapter or "").name


def _scheduler(variant: MotionVariant, prediction: Prediction) -> Scheduler:
    """Noise levels are the motion modules'; what is predicted, and whether from noise alone, is the image model's."""
    return make_plain_scheduler(variant.scheduler, {**variant.schedule, **prediction.settings()})


def _defaults(variant: MotionVariant) -> SettingsDict:
    return {"default_steps": variant.steps, "default_guidance": variant.guidance}
