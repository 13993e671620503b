"""From one layout of motion adapters to another."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from muybridge.checkpoints.motion_export import write_motion
from muybridge.checkpoints.motion_files import read_motion


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        path: what was written.
        layout: whose names it has.
        variant: of the motion adapter, as detected in the source.
        numerics: preset of norm scopes; only this package's own layout carries it.
        num_tensors: weights, position tables not counted.
    """

    path: Path
    layout: str
    variant: str
    numerics: str
    num_tensors: int


def convert_motion(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    layout: str,
    *,
    dtype: torch.dtype | None = None,
    num_heads: int = 8,
) -> Conversion:
    """Read a motion adapter in any layout and write it in another; no bit of a weight changes unless `dtype` does it.

    Args:
        source: a file or folder, see `checkpoints.motion_files.read_motion`.
        target: a new file or folder.
        layout: of the target, one of `checkpoints.motion_export.MOTION_LAYOUTS`.
        dtype: of the target; by default the source's.
        num_heads: attention heads, where the source is a file, which does not tell.

    Raises:
        CheckpointError: the source is no motion adapter, is damaged, or cannot be expressed in the layout.
        ConfigError: unknown layout, or a name that does not go with it.
        OutputError: the target exists or cannot be written.
    """
    loaded = read_motion(source, dtype=dtype, num_heads=num_heads)
    path = write_motion(loaded.adapter, Path(target), layout)
    weights = len(loaded.adapter.state_dict())
    return Conversion(path, layout, loaded.variant.name, loaded.adapter.numerics, weights)
