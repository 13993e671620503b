"""How the frames of a segment join those of the video so far."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from muybridge.errors import ConfigError, ShapeError

Join = Literal["crossfade", "cut"]


def check_join(join: str) -> None:
    """Raises ConfigError unless `join` is known."""
    if join not in get_args(Join):
        raise ConfigError(f"join must be one of {', '.join(get_args(Join))}; given {join!r}.")


def crossfade(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Fade from `old` to `new`, both `[k, h, w, c]`: frame i is `old * (1 - i / k) + new * (i / k)`.

    So the first frame is all old, and the last is not yet all new. Source: EasyAnimate V3, long video.

    Returns:
        The type of `old`; integers are rounded to the nearest. Computed in float32, or float64 where given.

    Raises:
        ShapeError: arrays of different shapes.
    """
    if old.shape != new.shape:
        raise ShapeError(
            f"Frames that fade into each other must have one shape; given {list(old.shape)} and {list(new.shape)}."
        )
    precision = np.result_type(old.dtype, new.dtype, np.float32) if old.dtype.kind == "f" else np.float32
    weights = (np.arange(len(old)) / max(1, len(old))).astype(precision).reshape(-1, *[1] * (old.ndim - 1))
    blended = old * (1 - weights) + new * weights
    return (blended if old.dtype.kind == "f" else np.rint(blended)).astype(old.dtype)


def join_frames(old: np.ndarray, new: np.ndarray, join: Join) -> np.ndarray:
    """Continue a video.

    Args:
        old: the last k frames of the video, `[k, h, w, c]`.
        new: a segment `[f, h, w, c]` whose first k frames show the same as `old`.
        join: `crossfade` fades from the old to the new picture of these frames. `cut` keeps the old ones, which is
            right where the segment was made from carried latents and its known frames are the old ones anyway.

    Returns:
        `[f, h, w, c]`: what takes the place of `old` at the end of the video.

    Raises:
        ShapeError: `new` is shorter than `old`, or of another size.
        ConfigError: a join that is not known.
    """
    check_join(join)
    known = len(old)
    if len(new) < known or old.shape[1:] != new.shape[1:]:
        raise ShapeError(
            f"A segment must have the size of the video and at least the {known} frames that it shares with it; given "
            f"{list(new.shape)} to continue {list(old.shape)}."
        )
    shared = crossfade(old, new[:known]) if join == "crossfade" else old
    return np.concatenate([shared, new[known:]])
