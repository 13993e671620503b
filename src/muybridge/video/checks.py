"""What a video may consist of, asked in one place for values and for files that are written as frames come."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from muybridge.errors import ConfigError, ShapeError

MIN_FPS, MAX_FPS = 0.01, 1000.0


def check_frames(frames: object, may_be_empty: bool = False) -> None:
    """Raises ShapeError unless `frames` are `uint8 [f, h, w, 3]`; `may_be_empty` allows `f` to be 0."""
    if not isinstance(frames, np.ndarray):
        raise ShapeError(
            f"frames must be a numpy array uint8 [f, h, w, 3]; given {type(frames).__name__}. Convert it first."
        )
    needed = frames.shape[1:] if may_be_empty else frames.shape
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in needed:
        raise ShapeError(
            f"frames must be uint8 [f, h, w, 3] with at least one frame and one pixel; "
            f"given {frames.dtype} {list(frames.shape)}. Scale values to 0..255 and put the colours last."
        )


def check_fps(fps: float) -> None:
    """Raises ConfigError unless `fps` is a number of 0.01 to 1000."""
    if not isinstance(fps, Real) or not MIN_FPS <= fps <= MAX_FPS:
        raise ConfigError(f"fps must be {MIN_FPS:g} to {MAX_FPS:g} frames per second; given {fps!r}.")


def check_request(request: object) -> None:
    """Raises ConfigError unless `request` is a mapping or None."""
    if request is not None and not isinstance(request, Mapping):
        raise ConfigError(f"request must be a mapping or None; given {type(request).__name__}.")
