"""How close clips come to true ones, in their pixels and in the place of the object, and how far they drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muybridge.demo.measure import Measurement
from muybridge.demo.task_report import Figures
from muybridge.errors import ShapeError
from muybridge.longvideo import DriftReport, measure_segment

FRAME_NAMES = {0: "first", -1: "last"}
_ROUNDING_ERROR = 1 / 12  # the variance of what rounding to whole numbers takes away


def psnr(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each picture, `[n, h, w, 3]` to `[n]`, in dB.

    Equal pictures have 58.9 dB, as if only the rounding to 8 bits were between them.

    Raises:
        ShapeError: arrays of different shapes, or not of pictures.
    """
    if pictures.shape != truth.shape or pictures.ndim != 4:
        raise ShapeError(f"Expected two arrays [n, h, w, 3] of one shape; given {pictures.shape} and {truth.shape}.")
    error = np.square(pictures.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, _ROUNDING_ERROR))


def frame_figures(clips: NDArray[np.uint8], truth: NDArray[np.uint8], frames: Sequence[int]) -> Figures:
    """Mean and worst PSNR of the first or last frames of clips `[n, f, h, w, 3]` against those of the true ones."""
    figures: dict[str, float | None] = {}
    for frame in frames:
        values = psnr(clips[:, frame], truth[:, frame])
        name = f"{FRAME_NAMES[frame]}_frame_psnr"
        figures[name] = round(float(values.mean()), 2)
        figures[f"{name}_worst"] = round(float(values.min()), 2)
    return figures


def position_figures(measured: Sequence[Measurement], truth: Sequence[Measurement], width: int) -> Figures:
    """Mean distance in pixels of the object from its true place, in the first, the middle and the last frame.

    Clips in which it is not found there count in `position_found` only, the share of clips in which it always is.
    """
    shown = {"first": 0, "middle": len(truth[0].centre) // 2, "last": -1}
    offsets = np.array(
        [[m.centre[i] - t.centre[i] for i in shown.values()] for m, t in zip(measured, truth, strict=True)]
    )
    distances = np.linalg.norm(offsets, axis=-1) * width
    figures = {f"position_error_{name}": mean_of(distances[:, i]) for i, name in enumerate(shown)}
    return figures | {"position_found": round(float(np.isfinite(distances).all(axis=1).mean()), 4)}


@dataclass(frozen=True, eq=False)
class Stretch:
    """The same piece of several videos: its frames `uint8 [n, f, h, w, 3]`, and what is measured in them."""

    frames: NDArray[np.uint8]
    measured: Sequence[Measurement]


def drift_figures(begun: Stretch, later: Stretch) -> Figures:
    """How far pieces are from the beginnings: mean absolute shifts of colour and place, mean ratios of the rest.

    Colours are on a scale of 0..255; the place is that of the object, averaged over the piece, in pixels.
    """
    drifts = [
        DriftReport((measure_segment(0, first), measure_segment(1, other))).drift(1)
        for first, other in zip(begun.frames, later.frames, strict=True)
    ]
    shifts = np.abs([drift.mean_shift for drift in drifts])
    moved = [_place(after) - _place(before) for before, after in zip(begun.measured, later.measured, strict=True)]
    return {
        "brightness_shift": mean_of(shifts[:, 0]),
        "blueness_shift": mean_of(shifts[:, 1]),
        "redness_shift": mean_of(shifts[:, 2]),
        "contrast_ratio": mean_of([ratio for drift in drifts if (ratio := drift.deviation_ratio[0]) is not None], 3),
        "sharpness_ratio": mean_of([drift.sharpness_ratio for drift in drifts if drift.sharpness_ratio is not None], 3),
        "position_shift": mean_of(np.linalg.norm(moved, axis=1) * begun.frames.shape[3]),
    }


def _place(measured: Measurement) -> NDArray[np.floating]:
    """Where the object is on average, as shares of the frame's width; NaN where it is in no frame."""
    found = measured.centre[np.isfinite(measured.centre).all(axis=1)]
    return found.mean(axis=0) if len(found) else np.full(2, np.nan)


def mean_of(values: NDArray[np.floating] | Sequence[float], digits: int = 2) -> float | None:
    """The rounded mean of those values that are finite; None without any."""
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    return round(float(known.mean()), digits) if known.size else None
