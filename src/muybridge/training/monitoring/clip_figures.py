"""How much happens in a clip, in figures that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from muybridge.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Clip = NDArray[np.uint8]
    """Frames `[f, h, w, 3]`."""


@dataclass(frozen=True)
class ClipFigures:
    """What happens between the frames of a clip; nothing in a clip of one.

    Attributes:
        motion: mean change of a pixel from one frame to the next, on a scale of 0 to 255.
        flicker: mean change of that change: what comes and goes from frame to frame, and is 0 for steady change.
        identical: share of neighbouring frames that are the same.
    """

    motion: float = 0.0
    flicker: float = 0.0
    identical: float = 0.0


_SAME = 0.5
"""Mean change of a pixel below which frames are the same: less than rounding and compression do."""


def clip_figures(frames: Clip) -> ClipFigures:
    """Measure a clip.

    Raises:
        ShapeError: no frames `[f, h, w, 3]`.
    """
    if frames.ndim != 4 or 0 in frames.shape:
        raise ShapeError(f"A clip is [frames, height, width, 3]; given {list(frames.shape)}.")
    if len(frames) < 2:
        return ClipFigures()
    values = frames.astype(np.float32)
    changes = np.diff(values, axis=0)
    by_frame = np.abs(changes).mean(axis=(1, 2, 3))
    flicker = float(np.abs(np.diff(changes, axis=0)).mean()) if len(frames) > 2 else 0.0
    return ClipFigures(float(by_frame.mean()), flicker, float((by_frame < _SAME).mean()))


def mean_figures(figures: Sequence[ClipFigures]) -> ClipFigures:
    """Of several clips."""
    if not figures:
        return ClipFigures()
    return ClipFigures(*(float(np.mean([asdict(each)[name] for each in figures])) for name in asdict(ClipFigures())))


def figures_of_batch(pixels: Tensor) -> ClipFigures:
    """Of the clips of a batch, `[b, f, 3, h, w]` in [-1, 1]; of pictures nothing happens."""
    if pixels.ndim != 5:
        return ClipFigures()
    clips = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 1, 3, 4, 2).cpu().numpy()
    return mean_figures([clip_figures(clip) for clip in clips])
