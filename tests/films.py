"""Synthetic scenes for films: textures that a camera passes along."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def texture(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Smooth noise of several sizes around a colour of its own, 0 to 255."""
    picture = np.zeros((height, width, 3), np.float32)
    for size in (3, 8, 24):
        coarse = rng.random((height // size + 2, width // size + 2, 3), np.float32)
        rows, columns = np.arange(height) / size, np.arange(width) / size
        top, left = rows.astype(int), columns.astype(int)
        down, across = (rows - top)[:, None, None], (columns - left)[None, :, None]
        upper = coarse[top][:, left] * (1 - across) + coarse[top][:, left + 1] * across
        lower = coarse[top + 1][:, left] * (1 - across) + coarse[top + 1][:, left + 1] * across
        picture += upper * (1 - down) + lower * down
    base = rng.uniform(40, 215, 3)
    return np.clip(base + (picture - picture.mean()) * 60, 0, 255).astype(np.float32)


def scene(
    seed: int, num_frames: int, size: tuple[int, int] = (96, 64), step: tuple[float, float] = (1.0, 0.0)
) -> Iterator[Pixels]:
    """A texture that a camera passes along, `step` pixels a frame to the right and down; size is width and height."""
    width, height = size
    span = int(max(map(abs, step)) * num_frames) + 2
    wide = texture(np.random.default_rng(seed), height + span, width + span)
    for index in range(num_frames):
        y, x = (round(abs(s) * index) if s >= 0 else span - round(abs(s) * index) for s in (step[1], step[0]))
        yield wide[y : y + height, x : x + width].astype(np.uint8)
