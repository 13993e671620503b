"""Joins of segments."""

from __future__ import annotations

import numpy as np
import pytest

from muybridge.errors import ConfigError, ShapeError
from muybridge.longvideo import crossfade, join_frames


def flat(levels: list[float], dtype: str) -> np.ndarray:
    return np.array(levels, dtype).reshape(-1, 1, 1, 1) * np.ones((1, 2, 3, 3), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_crossfade_is_the_original_ramp(dtype: str) -> None:
    old, new = flat([1.0, 1.0, 1.0, 1.0], dtype), flat([0.0, 0.0, 0.0, 0.0], dtype)
    faded = crossfade(old, new)
    assert faded.dtype == np.dtype(dtype)
    assert faded[:, 0, 0, 0].tolist() == [1.0, 0.75, 0.5, 0.25]


def test_bytes_are_rounded_to_the_nearest() -> None:
    faded = crossfade(flat([10, 10, 255], "uint8"), flat([200, 12, 0], "uint8"))
    assert faded.dtype == np.uint8
    # 10; 10 * 2/3 + 12 * 1/3 = 10.67; 255 * 1/3 = 85
    assert faded[:, 0, 0, 0].tolist() == [10, 11, 85]


def test_equal_frames_stay_as_they_are() -> None:
    frames = np.random.default_rng(0).integers(256, size=(5, 4, 4, 3), dtype=np.uint8)
    assert np.array_equal(crossfade(frames, frames), frames)


def test_joins() -> None:
    old, new = flat([100, 100], "uint8"), flat([0, 0, 7, 8], "uint8")
    assert join_frames(old, new, "crossfade")[:, 0, 0, 0].tolist() == [100, 50, 7, 8]
    assert join_frames(old, new, "cut")[:, 0, 0, 0].tolist() == [100, 100, 7, 8]
    assert join_frames(old[:0], new, "crossfade")[:, 0, 0, 0].tolist() == [0, 0, 7, 8]
    assert old[:, 0, 0, 0].tolist() == [100, 100]


def test_wrong_joins() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        crossfade(flat([1, 2], "uint8"), flat([1], "uint8"))
    with pytest.raises(ShapeError, match="at least the 2 frames"):
        join_frames(flat([1, 2], "uint8"), flat([1], "uint8"), "cut")
    with pytest.raises(ShapeError, match="size of the video"):
        join_frames(flat([1], "uint8"), np.zeros((4, 8, 8, 3), np.uint8), "cut")
    with pytest.raises(ConfigError, match="crossfade, cut; given 'fade'"):
        join_frames(flat([1], "uint8"), flat([1], "uint8"), "fade")  # type: ignore[arg-type]
