"""One call for any model: the family is read from the folder or file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from muybridge.checkpoints import locate_model, parts, read_model_index
from muybridge.checkpoints.base_models import read_base_model
from muybridge.checkpoints.easyanimate import is_published_folder
from muybridge.checkpoints.lacking_parts import load_lacking
from muybridge.checkpoints.motion_files import LoadedMotion, read_motion
from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion.variants import MotionVariant
from muybridge.pipelines.animatediff import AnimateDiffPipeline
from muybridge.pipelines.easyanimate import EasyAnimatePipeline
from muybridge.sampling.schedulers import Scheduler, make_plain_scheduler
from muybridge.weights.files import WEIGHT_SUFFIXES

_STILLS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def load_pipeline(
    model: str | os.PathLike[str] = "demo/animatediff",
    torch_dtype: torch.dtype = torch.float32,
    motion_adapter: str | os.PathLike[str] | None = None,
    parts_from: str | os.PathLike[str] | None = None,
    motion_variant: str | None = None,
) -> AnimateDiffPipeline | EasyAnimatePipeline:
    """Load a pipeline on the CPU; `.to(device)` moves it.

    Args:
        model: a shipped demo ("demo/animatediff"), a folder, or a hub id. With `motion_adapter` also Stable Diffusion
            1.5 or XL, as a folder, a hub id or a single file (`.safetensors`, `.ckpt`); it then runs with the noise
            levels, steps and guidance that the motion modules were made for.
        torch_dtype: of all networks.
        motion_adapter: a motion module file or the folder of an adapter, here or on the hub, in any layout that
            `checkpoints.motion_files.read_motion` knows, to use instead of the model's own. A model that has motion
            modules of its own keeps its noise levels, unless the new ones are distilled and run with no others.
        parts_from: a folder or hub id with what a single file lacks: always the tokenizers, sometimes VAE or text
            encoders. By default Stable Diffusion 1.5 or XL on the hub.
        motion_variant: what `motion_adapter` is, one of `motion.variants.VARIANTS`; by default as detected,
            with a warning where keys, shapes and name fit several.

    Raises:
        CheckpointError: no such model or adapter, a family that is not known, or parts that are missing or damaged.
        ConfigError: the adapter is for another backbone, or an argument has no effect on this model.
    """
    if motion_variant is not None and motion_adapter is None:
        raise ConfigError("motion_variant says what a motion adapter is; give motion_adapter too.")
    path = Path(model)
    is_file = path.is_file()
    if not path.exists() and path.suffix.lower() in WEIGHT_SUFFIXES:
        raise CheckpointError(f"There is no weight file {path}.")
    if parts_from is not None and not is_file:
        raise ConfigError(f"parts_from goes with a single file; {model} is a whole model. Leave it out.")
    if not is_file:
        folder = locate_model(model)
        if is_published_folder(folder) or read_model_index(folder).get("_class_name") == "EasyAnimatePipeline":
            if motion_adapter is not None:
                raise ConfigError("An EasyAnimate model has its motion modules in itself; leave motion_adapter out.")
            return EasyAnimatePipeline.from_pretrained(model, torch_dtype=torch_dtype)
    loaded = None if motion_adapter is None else read_motion(motion_adapter, dtype=torch_dtype, variant=motion_variant)
    if is_file:
        pipeline = _from_file(path, torch_dtype, loaded, parts_from)
    else:
        pipeline = _from_folder(locate_model(model), torch_dtype, loaded)
    pipeline.remember_parts(str(model))
    pipeline.motion_adapter_name = None if motion_adapter is None else str(motion_adapter)
    pipeline.motion_variant = motion_variant
    pipeline.parts_from = None if parts_from is None else str(parts_from)
    return pipeline


def _from_folder(folder: Path, dtype: torch.dtype, loaded: LoadedMotion | None) -> AnimateDiffPipeline:
    index = read_model_index(folder)
    family = index.get("_class_name")
    if family != "AnimateDiffPipeline" and (family not in _STILLS or loaded is None):
        raise CheckpointError(
            f"{folder} is a {family}; supported: AnimateDiffPipeline, and {' or '.join(_STILLS)} together with a "
            "motion adapter."
        )
    if loaded is None:
        return AnimateDiffPipeline.from_pretrained(folder, torch_dtype=dtype)
    components: dict[str, Any] = {"motion_adapter": loaded.adapter}
    chooses = family in _STILLS or loaded.variant.distilled
    if chooses:
        prediction = parts.load_scheduler(folder, index).config.get("prediction_type", "epsilon")  # type: ignore
        components["scheduler"] = _scheduler(loaded.variant, prediction)
    pipeline = AnimateDiffPipeline.from_pretrained(folder, torch_dtype=dtype, **components)
    if chooses:
        pipeline.register_to_config(**_defaults(loaded.variant))
    return pipeline


def _from_file(
    path: Path, dtype: torch.dtype, loaded: LoadedMotion | None, parts_from: str | os.PathLike[str] | None
) -> AnimateDiffPipeline:
    if loaded is None:
        raise CheckpointError(f"{path} makes still pictures; give a motion adapter too, and it makes videos.")
    base = read_base_model(path, dtype=dtype)
    present: dict[str, Any] = base.components()
    return AnimateDiffPipeline(
        **present,
        **load_lacking(base, str(path), parts_from, dtype),
        scheduler=_scheduler(loaded.variant, "epsilon"),  # type: ignore[arg-type]  # a protocol of what is used
        motion_adapter=loaded.adapter,
        **_defaults(loaded.variant),
    )


def _scheduler(variant: MotionVariant, prediction_type: str) -> Scheduler:
    return make_plain_scheduler(variant.scheduler, {**variant.schedule, "prediction_type": prediction_type})


def _defaults(variant: MotionVariant) -> dict[str, Any]:
    return {"default_steps": variant.steps, "default_guidance": variant.guidance}
