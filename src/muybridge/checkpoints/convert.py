"""From one layout to another: motion adapters, and image models in one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from muybridge.checkpoints.base_export import write_base_folder
from muybridge.checkpoints.detect import detect_weights
from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.motion_export import check_layout, write_motion
from muybridge.checkpoints.motion_files import LoadedMotion, adapter_from_weights, read_motion
from muybridge.checkpoints.prediction import prediction_of_file
from muybridge.errors import ConfigError
from muybridge.files.new_folder import check_new
from muybridge.weights.files import read_metadata, read_weights


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        path: what was written.
        layout: whose names it has.
        variant: of the motion adapter or image model, as detected in the source.
        numerics: preset of norm scopes, which only this package's own layout carries; None of an image model.
        num_tensors: weights of the source, position tables not counted.
    """

    path: Path
    layout: str
    variant: str
    numerics: str | None
    num_tensors: int


def convert_weights(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    layout: str,
    *,
    dtype: torch.dtype | None = None,
    num_heads: int | None = None,
    variant: str | None = None,
    parts_from: str | os.PathLike[str] | None = None,
) -> Conversion:
    """Read weights in any layout and write them in another; no bit of one changes unless `dtype` does it.

    What can be refused is refused before a network is built.

    Args:
        source: a motion adapter, file or folder (see `read_motion`), or Stable Diffusion 1.x in one file (see
            `read_base_model`).
        target: a new file or folder.
        layout: of the target, one of `checkpoints.motion_export.MOTION_LAYOUTS`; an image model becomes a pipeline
            folder of "diffusers".
        dtype: of the target; by default the source's.
        num_heads: attention heads, where the source is a motion module's file, which does not tell; 8 by default.
        variant: what a motion module is, where keys, shapes and name do not tell; see `read_motion`.
        parts_from: of an image model, see `write_base_folder`.

    Raises:
        CheckpointError: the source is something else, is damaged, or cannot be expressed in the layout.
        ConfigError: unknown layout, a name that does not go with it, num_heads below 1, or a setting for the other
            kind of source.
        OutputError: the target exists or cannot be written.
    """
    target = Path(target)
    check_new(target)
    check_layout(target, layout)
    if num_heads is not None and num_heads < 1:
        raise ConfigError(f"num_heads must be at least 1; given {num_heads}. Leave it out for 8.")
    path, name = locate_weights(source), Path(source).name
    if path.is_dir():
        _refuse({"parts_from": parts_from, "num_heads": num_heads})
        return _written(read_motion(source, dtype=dtype, variant=variant), target, layout)
    state = read_weights(path)
    detection = detect_weights(state, name)
    if detection.kind != "base-model":
        _refuse({"parts_from": parts_from})
        loaded = adapter_from_weights(
            state, name, dtype=dtype, num_heads=8 if num_heads is None else num_heads, variant=variant
        )
        return _written(loaded, target, layout)
    _refuse({"num_heads": num_heads, "motion_variant": variant})
    if layout != "diffusers":
        raise ConfigError(f"{name} is an image model ({detection.variant}); it can be written for diffusers, no more.")
    prediction = prediction_of_file(state, read_metadata(path), str(path))
    count = write_base_folder(state, str(path), target, dtype=dtype, parts_from=parts_from, prediction=prediction)
    return Conversion(target, layout, detection.variant, None, count)


_ABOUT = {
    "parts_from": "parts_from goes with an image model in one file; leave it out.",
    "num_heads": "num_heads is about the file of a motion module, which alone does not tell it; leave it out.",
    "motion_variant": "motion_variant is about motion modules; leave it out.",
}


def _refuse(without_effect: Mapping[str, object]) -> None:
    for name, value in without_effect.items():
        if value is not None:
            raise ConfigError(_ABOUT[name])


def _written(loaded: LoadedMotion, target: Path, layout: str) -> Conversion:
    path = write_motion(loaded.adapter, target, layout)
    weights = len(loaded.adapter.state_dict())
    return Conversion(path, layout, loaded.variant.name, loaded.adapter.numerics, weights)
