"""Folders of numbered PNG pictures."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from muybridge.video.encoding import FileSettings, Frames, TakeFrames

if TYPE_CHECKING:
    from PIL import Image

_COMMENT, _RATE = "comment", "frames per second"


@contextlib.contextmanager
def open_png_folder(path: Path, settings: FileSettings) -> Iterator[TakeFrames]:
    """Write the pictures into the existing folder `path`; the first one carries the rate and the comment."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text(_RATE, repr(settings.fps))
    if settings.comment is not None:
        notes.add_text(_COMMENT, settings.comment)
    indexes = itertools.count()

    def take(frames: Frames) -> None:
        for frame in frames:
            index = next(indexes)
            Image.fromarray(frame).save(path / f"{index:04d}.png", pnginfo=notes if index == 0 else None)

    yield take


def png_rate(image: Image.Image) -> float | None:
    """Frames per second that the first picture of a folder notes."""
    try:
        return float(_note(image, _RATE) or "")
    except ValueError:
        return None


def png_comment(image: Image.Image) -> str | None:
    """The comment of an opened picture."""
    return _note(image, _COMMENT)


def _note(image: Image.Image, key: str) -> str | None:
    note = image.info.get(key)
    return note if isinstance(note, str) else None
