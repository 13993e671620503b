"""What a single file of an image model lacks, taken from a pipeline folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from muybridge.checkpoints import parts
from muybridge.checkpoints.base_models import BaseModel
from muybridge.checkpoints.locate import fetch_model, locate_model
from muybridge.checkpoints.places import require_kind
from muybridge.checkpoints.text_pair import load_second_text_encoder, load_second_tokenizer
from muybridge.errors import CheckpointError
from muybridge.types import SettingsView
from muybridge.weights.files import read_weights


@dataclass(frozen=True)
class _Family:
    """What a pipeline has besides U-Net and scheduler, and where on the hub it is found by default."""

    title: str
    parts: tuple[str, ...]
    source: str


_FAMILIES = {
    "base-sd15": _Family(
        "Stable Diffusion 1.5", ("tokenizer", "vae", "text_encoder"), "stable-diffusion-v1-5/stable-diffusion-v1-5"
    ),
    "base-sdxl": _Family(
        "Stable Diffusion XL",
        ("tokenizer", "tokenizer_2", "vae", "text_encoder", "text_encoder_2"),
        "stabilityai/stable-diffusion-xl-base-1.0",
    ),
}
_LOADERS: dict[str, Callable[[Path, SettingsView, torch.dtype], object]] = {
    "tokenizer": lambda folder, index, _dtype: parts.load_tokenizer(folder, index),
    "tokenizer_2": lambda folder, index, _dtype: load_second_tokenizer(folder, index),
    "vae": lambda folder, _index, dtype: parts.load_vae(folder, dtype),
    "text_encoder": lambda folder, _index, dtype: parts.load_text_encoder(folder, dtype),
    "text_encoder_2": lambda folder, _index, dtype: load_second_text_encoder(folder, dtype),
}


def load_lacking(
    base: BaseModel,
    source: str,
    parts_from: str | os.PathLike[str] | None,
    dtype: torch.dtype,
    given: Collection[str] = (),
) -> dict[str, Any]:
    """Load what a pipeline of `base` needs besides its networks and a scheduler, by the names that pipelines use.

    Args:
        base: what the file has.
        source: its name, for messages.
        parts_from: a folder or hub id; by default Stable Diffusion 1.5 or XL on the hub.
        dtype: of the networks.
        given: parts that are there already.

    Raises:
        CheckpointError: `parts_from` is a file, or a part is nowhere to be had, or damaged.
    """
    if parts_from is not None and Path(parts_from).is_file():
        require_kind(read_weights(parts_from), "parts", str(parts_from))
        raise CheckpointError(f"{parts_from} is a file; parts_from, or --parts-from, is the folder of a whole model.")
    family, present = _FAMILIES[base.variant], {*base.components(), *given}
    lacking = [name for name in family.parts if name not in present]
    try:
        folder = fetch_model(family.source, lacking) if parts_from is None else locate_model(parts_from, lacking)
        index = parts.read_model_index(folder)
        if absent := [name for name in lacking if not (folder / name).is_dir()]:
            raise CheckpointError(f"it has no {' and no '.join(absent)}, which {source} lacks.")
        return {name: _LOADERS[name](folder, index, dtype) for name in lacking}
    except CheckpointError as error:
        raise CheckpointError(
            f"{source} has no {' and no '.join(sorted(lacking))}, which a single file can lack, and "
            f"{family.source if parts_from is None else parts_from} does not give it ({error}) Name a folder of "
            f"{family.title} with parts_from."
        ) from error
