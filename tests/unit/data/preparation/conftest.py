"""Synthetic films: textured scenes that move, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

Pixels = npt.NDArray[np.uint8]
FilmMaker = Callable[..., Path]


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


@pytest.fixture(scope="session")
def make_film() -> FilmMaker:
    """A maker of films out of frames: codec, fps or times in milliseconds, options of the encoder."""

    def make(path: Path, frames: Iterable[Pixels], **options: Any) -> Path:
        codec, times_ms = options.pop("codec", "libx264"), options.pop("times_ms", None)
        kind, matrix, context = options.pop("kind", "yuv420p"), options.pop("matrix", None), options.pop("context", {})
        with av.open(str(path), "w") as file:
            quick = {"preset": "ultrafast"} if codec == "libx264" else {}
            stream: Any = file.add_stream(codec, rate=options.pop("fps", 24), options={**quick, **options})
            stream.codec_context.thread_type = "NONE"
            if times_ms is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for index, pixels in enumerate(frames):
                if not index:
                    stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], kind
                    if matrix is not None:
                        stream.set_display_matrix(matrix)
                    for name, value in context.items():
                        setattr(stream.codec_context, name, value)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=kind)
                if times_ms is not None:
                    frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path

    return make
