"""One call for any model: the family is read from the folder or file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from muybridge.checkpoints import locate_model, parts, read_model_index
from muybridge.checkpoints.base_models import base_model_from_weights, precision_of_parts
from muybridge.checkpoints.lacking_parts import load_lacking
from muybridge.checkpoints.motion_files import LoadedMotion, read_motion
from muybridge.checkpoints.places import require_kind
from muybridge.checkpoints.prediction import (
    Prediction,
    prediction_of_file,
    prediction_of_scheduler,
    prediction_type,
    without_marks,
)
from muybridge.checkpoints.unet_kinds import check_motion_fits, unet_kind
from muybridge.checkpoints.vae_files import own_vae_settings, read_vae
from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion.variants import MotionVariant
from muybridge.pipelines.animatediff.parts import has_motion
from muybridge.pipelines.animatediff.pipeline import AnimateDiffPipeline
from muybridge.pipelines.easyanimate.folder import is_published_folder, load_own_vae
from muybridge.pipelines.easyanimate.pipeline import EasyAnimatePipeline
from muybridge.pipelines.make import VideoPipeline
from muybridge.pipelines.placing import Place, Wish, find_place, put
from muybridge.pipelines.planning import PartsBeside
from muybridge.request import ModelChoice
from muybridge.sampling.schedulers import Scheduler, make_plain_scheduler, with_settings
from muybridge.types import VideoShape
from muybridge.weights.files import WEIGHT_SUFFIXES, read_metadata, read_weights

_UNETS = ("UNet2DConditionModel", "UNetMotionModel", "UNet3DConditionModel")
_VIDEO_PREFIX = "AnimateDiff"


@dataclass(frozen=True)
class _Wishes:
    """What is used instead of what the model has or says, or None; `model` is what it was called."""

    model: str
    dtype: torch.dtype
    motion: LoadedMotion | None
    motion_name: str
    parts_from: str | os.PathLike[str] | None
    vae: str | os.PathLike[str] | None
    prediction: str | None


def load_pipeline(  # noqa: PLR0913  # the one call for any model; what decides over memory goes by keyword
    model: str | os.PathLike[str] = "demo/animatediff",
    torch_dtype: torch.dtype | str = torch.float32,
    motion_adapter: str | os.PathLike[str] | None = None,
    parts_from: str | os.PathLike[str] | None = None,
    motion_variant: str | None = None,
    vae: str | os.PathLike[str] | None = None,
    prediction: str | None = None,
    *,
    memory: int | str | None = None,
    speed: str | Sequence[str] = (),
    device: str | torch.device | None = None,
    shape: VideoShape | None = None,
) -> AnimateDiffPipeline | EasyAnimatePipeline:
    """Load a pipeline: on the CPU, from where `.to(device)` moves it, unless `device` or `memory` say otherwise.

    Args:
        model: a shipped demo ("demo/animatediff"), a folder, or a hub id; folders may be of diffusers' AnimateDiff
            pipelines. With `motion_adapter` also Stable Diffusion 1.5 or XL, as a folder, a hub id or a single file; it
            then runs with the noise levels, steps and guidance that the motion modules were made for, and what it
            predicts, as its file or folder says it.
        torch_dtype: of all networks, also by name. "auto" is bfloat16 where a card multiplies it and float16 where it
            does not, and float32 on a CPU.
        motion_adapter: a motion module file or the folder of an adapter, here or on the hub, in any layout that
            `checkpoints.motion_files.read_motion` knows, to use instead of the model's own. A model that has motion
            modules of its own keeps its noise levels, unless the new ones are distilled and run with no others.
        parts_from: a folder or hub id with what a single file lacks: always the tokenizers, sometimes VAE or text
            encoders. By default Stable Diffusion 1.5 or XL on the hub.
        motion_variant: what `motion_adapter` is, one of `motion.variants.VARIANTS`; by default as detected, with a
            warning where keys, shapes and name fit several.
        vae: a VAE to use instead of the model's own: a file or folder, here or on the hub; see
            `checkpoints.vae_files.read_vae`. For EasyAnimate the folder of one of its own.
        prediction: what the model predicts, where it is not said beside it, or wrongly: "epsilon", "v" or "sample".

        memory: what the device may use: bytes, or text as in "12GB"; "auto" for what is free on it now (a CPU has
            nothing to fit then), "max" for all of it. The cheapest settings that fit are chosen before a weight is
            read, and applied; the precision asked for is kept. The pipeline says them in `placement`, and
            `runtime.placement.describe` in words.
        speed: names of optimizations to apply (`runtime.options.OPTIMIZATIONS`).
        device: where to run; with `memory` by default the accelerator that there is.
        shape: of the videos that `memory` is to be enough for; by default what the model makes by default.

    Raises:
        CheckpointError: no such model or adapter, a family that is not known, or parts that are missing or damaged.
        ConfigError: parts that do not fit each other, an argument that has no effect on this model, or memory in which
            nothing fits; names the least that would do.

    Warns:
        UserWarning: what is taken instead of what is said.
    """
    if shape is not None and memory is None:
        raise ConfigError("shape says what memory is to be enough for; give memory too, or leave it out.")
    named = Names(model, motion_adapter, motion_variant, parts_from, vae, prediction)
    wish = Wish(torch_dtype, memory, speed, device, shape)
    pipeline, place = _loaded(named, wish)
    put(pipeline, place)
    return pipeline


def load_choice(choice: ModelChoice, wish: Wish) -> VideoPipeline:
    """Load a model and all that is put into it, into the memory that it may have.

    Raises:
        ConfigError: something that this model does not take, or memory in which nothing fits.
        CheckpointError: as `load_pipeline`, and for what is put into it.
    """
    names = (choice.motion_adapter, choice.motion_variant, choice.parts_from, choice.vae, choice.prediction)
    pipeline, place = _loaded(Names(choice.model, *names), wish)
    for path, weight in choice.loras.items():
        pipeline.load_lora_weights(path, weight=weight)
    for path, name in choice.embeddings.items():
        pipeline.load_embedding(path, name)
    for role, path in choice.networks.items():
        pipeline.load_network(role, path, choice.networks)
    # Last: what is put into layers has to be there before layers wait elsewhere.
    put(pipeline, place)
    return pipeline


@dataclass(frozen=True)
class Names:
    """What to load, as `load_pipeline` is told it."""

    model: str | os.PathLike[str]
    motion_adapter: str | os.PathLike[str] | None = None
    motion_variant: str | None = None
    parts_from: str | os.PathLike[str] | None = None
    vae: str | os.PathLike[str] | None = None
    prediction: str | None = None


def _loaded(names: Names, wish: Wish) -> tuple[AnimateDiffPipeline | EasyAnimatePipeline, Place]:
    """The pipeline in its precision, and where it is to go."""
    model, adapter = names.model, names.motion_adapter
    if names.motion_variant is not None and adapter is None:
        raise ConfigError("motion_variant says what a motion adapter is; give motion_adapter too.")
    asked = None if names.prediction is None else prediction_type(names.prediction)
    path = Path(model)
    is_file = path.is_file()
    if not path.exists() and path.suffix.lower() in WEIGHT_SUFFIXES:
        raise CheckpointError(f"There is no weight file {path}.")
    if names.parts_from is not None and not is_file:
        raise ConfigError(f"parts_from goes with a single file; {model} is a whole model. Leave it out.")
    folder = None if is_file else locate_model(model)
    place = find_place(model, wish, PartsBeside(adapter, names.motion_variant, names.parts_from))
    dtype = place.dtype
    pipeline: AnimateDiffPipeline | EasyAnimatePipeline
    if folder is not None and _is_easyanimate(folder):
        if adapter is not None:
            raise ConfigError("An EasyAnimate model has its motion modules in itself; leave motion_adapter out.")
        pipeline = _easyanimate(model, folder, dtype, names.vae, asked)
    else:
        motion = None if adapter is None else read_motion(adapter, dtype=dtype, variant=names.motion_variant)
        wishes = _Wishes(str(model), dtype, motion, Path(adapter or "").name, names.parts_from, names.vae, asked)
        pipeline = _from_file(path, wishes) if folder is None else _from_folder(folder, wishes)
    given = {"motion_adapter": adapter, "parts_from": names.parts_from, "vae": names.vae}
    recorded = {name: None if each is None else str(each) for name, each in given.items()}
    pipeline.remember_parts(str(model), {**recorded, "motion_variant": names.motion_variant, "prediction": asked})
    return pipeline, place


def _is_easyanimate(folder: Path) -> bool:
    return is_published_folder(folder) or read_model_index(folder).get("_class_name") == "EasyAnimatePipeline"


def _easyanimate(
    model: str | os.PathLike[str],
    folder: Path,
    dtype: torch.dtype,
    vae: str | os.PathLike[str] | None,
    asked: str | None,
) -> EasyAnimatePipeline:
    components: dict[str, Any] = {} if vae is None else {"vae": load_own_vae(vae, folder, dtype)}
    pipeline = EasyAnimatePipeline.from_pretrained(model, torch_dtype=dtype, **components)
    _predict_as_asked(pipeline, asked, str(model))
    return pipeline


def _from_folder(folder: Path, wishes: _Wishes) -> AnimateDiffPipeline:
    index, motion = read_model_index(folder), wishes.motion
    makes_videos = _makes_videos(folder, index, motion is not None)
    settings = parts.unet_settings(folder)
    components: dict[str, Any] = {}
    if motion is not None:
        if settings:  # without them, loading says what is missing
            check_motion_fits(settings, motion, wishes.model, wishes.motion_name)
        components["motion_adapter"] = motion.adapter
    if wishes.vae is not None:
        is_sdxl = unet_kind(settings) == "sdxl"
        components["vae"] = read_vae(wishes.vae, wishes.dtype, own=own_vae_settings(folder), is_sdxl=is_sdxl)
    chosen = motion if motion is not None and (not makes_videos or motion.variant.distilled) else None
    if chosen is not None:
        scheduler: Any = parts.load_scheduler(folder, index)
        prediction = prediction_of_scheduler(scheduler.config, wishes.model, wishes.prediction)
        components["scheduler"] = _scheduler(chosen.variant, prediction)
    pipeline = AnimateDiffPipeline.from_pretrained(folder, torch_dtype=wishes.dtype, **components)
    if chosen is not None:
        pipeline.register_to_config(**_defaults(chosen.variant))
    else:
        _predict_as_asked(pipeline, wishes.prediction, wishes.model)
    return pipeline


def _makes_videos(folder: Path, index: dict[str, Any], brings_motion: bool) -> bool:
    """Whether a folder is a video model, decided by its parts; refuses what is neither that nor becomes it."""
    family, unet = index.get("_class_name"), parts.class_of_part(folder, "unet")
    if isinstance(family, str) and unet in (*_UNETS, None) and "unet" in index:
        if family.startswith(_VIDEO_PREFIX) or has_motion(folder, index):
            return True
        if brings_motion:
            return False
    raise CheckpointError(
        f"{folder} is a {family}; supported: AnimateDiffPipeline, and StableDiffusionPipeline or "
        "StableDiffusionXLPipeline together with a motion adapter (motion_adapter, or --motion-adapter), both also as "
        "diffusers saves them for other tasks, where they have a U-Net of these; and EasyAnimatePipeline."
    )


def _from_file(path: Path, wishes: _Wishes) -> AnimateDiffPipeline:
    motion, state = wishes.motion, read_weights(path, precision_of_parts(wishes.dtype))
    require_kind(state, "base-model", str(path), path.name)
    if motion is None:
        raise CheckpointError(f"{path} makes still pictures; give a motion adapter too, and it makes videos.")
    prediction = prediction_of_file(state, read_metadata(path), str(path), wishes.prediction)
    base = base_model_from_weights(without_marks(state), str(path), dtype=wishes.dtype)
    check_motion_fits(base.unet.config, motion, str(path), wishes.motion_name)
    present: dict[str, Any] = base.components()
    if wishes.vae is not None:
        own = None if base.vae is None else dict(base.vae.config)
        present["vae"] = read_vae(wishes.vae, wishes.dtype, own=own, is_sdxl=base.variant == "base-sdxl")
    return AnimateDiffPipeline(
        **present,
        **load_lacking(base, str(path), wishes.parts_from, wishes.dtype, present),
        scheduler=_scheduler(motion.variant, prediction),  # type: ignore[arg-type]  # a protocol of what is used
        motion_adapter=motion.adapter,
        **_defaults(motion.variant),
    )


def _scheduler(variant: MotionVariant, prediction: Prediction) -> Scheduler:
    """Noise levels are the motion modules'; what is predicted, and whether from noise alone, is the image model's."""
    return make_plain_scheduler(variant.scheduler, {**variant.schedule, **prediction.settings()})


def _predict_as_asked(pipeline: AnimateDiffPipeline | EasyAnimatePipeline, asked: str | None, source: str) -> None:
    scheduler: Any = pipeline.scheduler
    prediction = prediction_of_scheduler(scheduler.config, source, asked)
    own = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False, **scheduler.config}
    if any(own[name] != value for name, value in prediction.settings().items()):
        pipeline.register_modules(scheduler=with_settings(scheduler, prediction.settings()))


def _defaults(variant: MotionVariant) -> dict[str, Any]:
    return {"default_steps": variant.steps, "default_guidance": variant.guidance}
