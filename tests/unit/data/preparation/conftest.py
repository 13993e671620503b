"""Synthetic films: textured scenes that move, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.films import Pixels
from tests.unit.data.conftest import ClipMaker
from tests.unit.data.preparation import small_models

from muybridge.data.probe import probe
from muybridge.data.record import Record

FilmMaker = Callable[..., Path]


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


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where a small model of a kind lies: `clip`, `siglip`, `llava`, or `language_model`."""
    folder = tmp_path_factory.mktemp("models")

    def made(kind: str) -> Path:
        path = folder / kind
        return path if path.is_dir() else getattr(small_models, f"write_{kind}")(path)

    return made


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory, make_clip: ClipMaker) -> Record:
    """A clip of one second, which gets brighter."""
    path = make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", size=(64, 48))
    found = probe(Record("0123456789abcdef", str(path), "video"))
    assert isinstance(found, Record)
    return found
