"""Convolutions of a picture in tiles, exactly: each tile is read with the pixels around it that it needs.

Group norms take their statistics from the whole picture, so there are no seams and the result is that of the whole
picture; but only the input, the output and one tile of normalised features exist at a time. Nothing here records
gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from muybridge.vae.magvit.layers import GroupNorm, Rectangle, VideoConvolution, enlarge, tiles

_KERNEL = 3


class Source(Protocol):
    """The input of a convolution, made where it is read."""

    height: int
    width: int

    def read(self, where: Rectangle) -> Tensor:
        """The features of a rectangle inside the picture, `[b, c, t, h, w]`."""
        ...


class Plain:
    """Features as they are."""

    def __init__(self, x: Tensor) -> None:
        """`x [b, c, t, h, w]`."""
        self._x = x
        self.height, self.width = x.shape[-2:]

    def read(self, where: Rectangle) -> Tensor:
        """A view."""
        top, bottom, left, right = where
        return self._x[..., top:bottom, left:right]


class Activated(Plain):
    """SiLU of the normalised features."""

    def __init__(self, x: Tensor, norm: GroupNorm, tile_size: int) -> None:
        """Reads `x` once for the statistics, tile by tile."""
        super().__init__(x)
        self._norm = norm
        self._statistics = norm.statistics(x, tile_size)

    def read(self, where: Rectangle) -> Tensor:
        """A fresh tensor in the dtype of the features."""
        return self._norm.activated(super().read(where), self._statistics)


class Enlarged(Plain):
    """Features at twice the height and width, nearest neighbour."""

    def __init__(self, x: Tensor) -> None:
        """`x` is at the small size."""
        super().__init__(x)
        self.height, self.width = 2 * self.height, 2 * self.width

    def read(self, where: Rectangle) -> Tensor:
        """A view of the enlarged neighbourhood of the rectangle."""
        top, bottom, left, right = where
        small = super().read((top // 2, (bottom + 1) // 2, left // 2, (right + 1) // 2))
        return enlarge(small)[..., top % 2 : top % 2 + bottom - top, left % 2 : left % 2 + right - left]


def convolve(
    convolution: VideoConvolution,
    source: Source,
    tile_size: int,
    add_to: Tensor | None = None,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """A convolution in tiles of `tile_size` pixels of its output.

    Args:
        convolution: of any stride.
        source: its input.
        tile_size: edge of a tile; each also reads a margin of one pixel.
        add_to: where the result is added to, in place; a new tensor by default.
        finish: what to do with each tile that comes out, as long as it leaves height and width alone.

    Returns:
        `[b, d, t', h', w']`: `add_to`, if given.
    """
    left, right, top, bottom = convolution.borders
    _, stride_y, stride_x = convolution.stride
    height = (source.height + top + bottom - _KERNEL) // stride_y + 1
    width = (source.width + left + right - _KERNEL) // stride_x + 1
    result = add_to
    for where in tiles(height, width, tile_size):
        above, below, y0, y1 = _reach(where[0], where[1], stride_y, top, source.height)
        before, behind, x0, x1 = _reach(where[2], where[3], stride_x, left, source.width)
        tile = convolution(source.read((y0, y1, x0, x1)), (before, behind, above, below))
        tile = tile if finish is None else finish(tile)
        if result is None:
            result = tile.new_empty(*tile.shape[:3], height, width)
        target = result[..., where[0] : where[1], where[2] : where[3]]
        if add_to is None:
            target.copy_(tile)
        else:
            target.add_(tile)
    if result is None:
        raise ValueError("There is nothing to convolve.")
    return result


def _reach(start: int, stop: int, stride: int, border: int, size: int) -> tuple[int, int, int, int]:
    """Zeros before and after, and the pixels that outputs `start..stop` are made of, along one axis."""
    low = start * stride - border
    high = (stop - 1) * stride - border + _KERNEL
    return max(0, -low), max(0, high - size), max(0, low), min(high, size)
