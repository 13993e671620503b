"""Sizes of about the same number of pixels for every aspect ratio, as image models are trained on."""

from __future__ import annotations

from muybridge.errors import ConfigError

_LANDSCAPE_512 = (
    (256, 1024),
    (256, 992),
    (256, 960),
    (256, 928),
    (288, 896),
    (288, 864),
    (288, 832),
    (320, 800),
    (320, 768),
    (352, 736),
    (352, 704),
    (352, 672),
    (384, 672),
    (384, 640),
    (416, 608),
    (416, 576),
    (448, 576),
    (448, 544),
    (480, 544),
    (480, 512),
)
_MISSING_PORTRAIT = (672, 352)  # the only one that PixArt's table does not mirror
ASPECT_BUCKETS_512: tuple[tuple[int, int], ...] = (
    *_LANDSCAPE_512,
    (512, 512),
    *((w, h) for h, w in reversed(_LANDSCAPE_512) if (w, h) != _MISSING_PORTRAIT),
)
"""The 40 (height, width) of PixArt and EasyAnimate for base resolution 512."""


def fit_size(height: int, width: int, base: int = 512, multiple: int = 16) -> tuple[int, int]:
    """The (height, width) to make a video in that starts from a picture of the given size.

    Args:
        height: of the picture.
        width: of the picture.
        base: side of the square with as many pixels; EasyAnimate's models are for 512, 768 and 960.
        multiple: what both sides are rounded down to.

    Raises:
        ConfigError: a base below 64.
    """
    if base < 64:
        raise ConfigError(f"The base resolution must be at least 64; given {base}. The published ones: 512, 768, 960.")
    ratio = height / width
    nearest = min(ASPECT_BUCKETS_512, key=lambda size: abs(size[0] / size[1] - ratio))
    rows, columns = (max(multiple, int(side * base / 512) // multiple * multiple) for side in nearest)
    return rows, columns
