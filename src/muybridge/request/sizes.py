"""Sizes of about the same number of pixels for every aspect ratio, as image models are trained on."""

from __future__ import annotations

import itertools
import math

from muybridge.errors import ConfigError

MAX_STRETCH = 0.02
"""How far an aspect ratio may be off: what rounding to the multiples of a VAE does to an ordinary picture; not seen."""
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


def stretch_of(source: tuple[int, int], size: tuple[int, int]) -> float:
    """How far off the aspect ratio of a source of (height, width) is in another size, 0 for not at all."""
    return abs((source[1] * size[0]) / (source[0] * size[1]) - 1)


def size_like(
    source: tuple[int, int], asked: tuple[int | None, int | None], own: tuple[int, int], multiple: int
) -> tuple[int, int]:
    """The (height, width) of a video that has the shape of a source, and about as many pixels as a model is made for.

    Args:
        source: height and width.
        asked: likewise; one or both None, which then follows.
        own: of the model; taken as it is where it has the source's shape.
        multiple: what the sides that follow are multiples of.
    """
    height, width = asked
    aspect = source[1] / source[0]
    if height is None and width is None:
        if stretch_of(source, own) <= MAX_STRETCH:
            return own
        ideal = math.sqrt(own[0] * own[1])
        heights, widths = _around(ideal / math.sqrt(aspect), multiple), _around(ideal * math.sqrt(aspect), multiple)
    else:
        heights = _around((width or 0) / aspect, multiple) if height is None else (height,)
        widths = _around((height or 0) * aspect, multiple) if width is None else (width,)
    return min(itertools.product(heights, widths), key=lambda size: abs(math.log(size[1] / size[0] / aspect)))


def _around(side: float, multiple: int) -> tuple[int, ...]:
    below = max(multiple, math.floor(side / multiple) * multiple)
    return below, below + multiple
