"""One call for any model: the family is read from the folder or file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from muybridge.checkpoints import SHIPPED_MODELS
from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines.make import VideoPipeline
from muybridge.pipelines.placing import Wish, find_place, put
from muybridge.pipelines.wishes import wishes_of
from muybridge.request import ModelChoice
from muybridge.types import VideoShape
from muybridge.weights.loading import parts_read_to


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
) -> VideoPipeline:
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
    choice = ModelChoice(
        model=_named(model),
        motion_adapter=None if motion_adapter is None else _named(motion_adapter),
        motion_variant=motion_variant,
        parts_from=None if parts_from is None else _named(parts_from),
        vae=None if vae is None else _named(vae),
        prediction=prediction,
    )
    return load_choice(choice, Wish(torch_dtype, memory, speed, device, shape))


def _named(place: str | os.PathLike[str]) -> str:
    """A place as a choice has it: a `Path` is on this machine, and never looked for on the hub."""
    is_missing = not isinstance(place, str) and not Path(place).exists() and str(place) not in SHIPPED_MODELS
    return str(Path(place).absolute()) if is_missing else os.fspath(place)


def load_choice(choice: ModelChoice, wish: Wish) -> VideoPipeline:
    """Load a model and all that is put into it, into the memory that it may have.

    What `choice` says of precision, device, memory and speed is in `wish`, which counts.

    Raises:
        ConfigError: something that this model does not take, or memory in which nothing fits.
        CheckpointError: as `load_pipeline`, and for what is put into it.
    """
    wishes = wishes_of(choice, wish.controls, wish.profile)
    try:
        place = find_place(wishes, wish)
    except CheckpointError:
        wishes.family.load(wishes, torch.float32)  # which says better what is wrong with a file
        raise
    with parts_read_to(place.parts_device):
        pipeline: VideoPipeline = wishes.family.load(wishes, place.dtype)
    recorded = choice.model_dump(include={"motion_adapter", "parts_from", "vae", "motion_variant"})
    pipeline.remember_parts(choice.model, {**recorded, "prediction": wishes.prediction})
    for path, weight in choice.loras.items():
        pipeline.load_lora_weights(path, weight=weight)
    for path, name in choice.embeddings.items():
        pipeline.load_embedding(path, name)
    for role, path in choice.networks.items():
        pipeline.load_network(role, path, choice.networks)
    # Last: what is put into layers has to be there before layers wait elsewhere.
    put(pipeline, place)
    return pipeline
