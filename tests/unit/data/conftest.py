"""Tiny clips and pictures, written once."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

ClipMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_clip() -> ClipMaker:
    """A maker of clips whose frame number k is grey of level 8 k, or black, with x264 unless it is told otherwise."""

    def make(path: Path, num_frames: int = 24, size: tuple[int, int] = (32, 32), **options: Any) -> Path:
        codec, times_ms = options.pop("codec", "libx264"), options.pop("times_ms", None)
        context, container = options.pop("context", {}), options.pop("container", {})
        step = 0 if options.pop("black", False) else 8
        noise = np.random.default_rng(0).integers(0, 1 + options.pop("noise", 0), (size[1], size[0], 3), np.uint8)
        kind, matrix = options.pop("kind", "yuv420p"), options.pop("matrix", None)
        with av.open(str(path), "w", options=container) as file:
            stream: Any = file.add_stream(codec, rate=options.pop("fps", 24), options={"g": "12", **options})
            stream.width, stream.height = size
            stream.pix_fmt = kind
            stream.codec_context.thread_type = "NONE"
            if matrix is not None:
                stream.set_display_matrix(matrix)
            if times_ms is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for name, value in context.items():
                setattr(stream.codec_context, name, value)
            for index in range(num_frames):
                pixels = np.full((size[1], size[0], 3), min(255, step * index), np.uint8) + noise
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=kind)
                if times_ms is not None:
                    frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path

    return make


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, make_clip: ClipMaker) -> Path:
    """A folder with `a.mp4` (24 frames in a second), `b.mkv` (12 in half one, 48x32), and `c.png` of 32x48."""
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "a.mp4")
    make_clip(folder / "b.mkv", 12, (48, 32))
    Image.fromarray(np.full((48, 32, 3), 90, np.uint8)).save(folder / "c.png")
    return folder
