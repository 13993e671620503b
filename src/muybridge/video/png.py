"""Folders of numbered PNG pictures."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from muybridge.errors import InputFileError
from muybridge.files.atomic import NUMBERED_PNG
from muybridge.video.decoded import Decoded, stack_frames
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


def read_png(path: Path) -> Decoded:
    """Decode a folder of numbered pictures, or one picture."""
    pictures = _pictures(path)
    return Decoded(
        stack_frames(_pixels(picture) for picture in pictures), _rate(pictures[0]), _note(pictures[0], _COMMENT)
    )


def iterate_png(path: Path, start: int) -> Generator[Frames, None, None]:
    """Decode picture by picture, `[h, w, 3]`, from the one at `start` on."""
    yield from map(_pixels, _pictures(path)[start:])


def read_png_comment(path: Path) -> str | None:
    """The comment of a picture or of the first one in a folder, without decoding."""
    return _note(_pictures(path)[0], _COMMENT)


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    numbered = [entry for entry in path.iterdir() if NUMBERED_PNG.fullmatch(entry.name)]
    if not numbered:
        raise InputFileError("The folder holds no numbered pictures such as 0000.png.")
    return sorted(numbered, key=lambda entry: int(entry.stem))


def _pixels(picture: Path) -> Frames:
    with _open(picture) as image:
        if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "1"):
            raise InputFileError(f"{picture.name} has the pixel type {image.mode}; 8 bits a colour can be read.")
        return np.asarray(image.convert("RGB"))


def _rate(picture: Path) -> float | None:
    try:
        return float(_note(picture, _RATE) or "")
    except ValueError:
        return None


def _note(picture: Path, key: str) -> str | None:
    with _open(picture) as image:
        note = image.info.get(key)
    return note if isinstance(note, str) else None


def _open(picture: Path) -> Image.Image:
    from PIL import Image

    return Image.open(picture, formats=["PNG"])
