"""Sizes of videos and of their latents."""

from __future__ import annotations

import pytest

from muybridge.errors import ShapeError
from muybridge.types import LatentShape, ScaleFactors, VideoShape


def test_latent_shape() -> None:
    assert ScaleFactors(8).latent_shape(VideoShape(16, 512, 256), 4) == LatentShape(4, 16, 64, 32)
    assert ScaleFactors(4).latent_shape(VideoShape(1, 4, 8), 3) == LatentShape(3, 1, 1, 2)


@pytest.mark.parametrize(
    ("height", "width", "nearest"),
    [(510, 257, "256x512"), (512, 1, "8x512"), (0, 64, "64x8"), (-16, -16, "8x8"), (4, 12, "16x8")],
)
def test_sizes_that_do_not_fit_name_the_nearest(height: int, width: int, nearest: str) -> None:
    with pytest.raises(ShapeError, match=rf"multiples of 8; given {width}x{height}\. The nearest is {nearest}\."):
        ScaleFactors(8).latent_shape(VideoShape(16, height, width), 4)


@pytest.mark.parametrize("num_frames", [0, -1])
def test_a_video_has_a_frame(num_frames: int) -> None:
    with pytest.raises(ShapeError, match=f"num_frames must be at least 1; given {num_frames}"):
        ScaleFactors(8).latent_shape(VideoShape(num_frames, 64, 64), 4)
