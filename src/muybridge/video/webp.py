"""Animated WebP, lossless."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.video.decoded import Decoded, stack_frames
from muybridge.video.timing import tick_durations

if TYPE_CHECKING:
    from PIL import Image

_DESCRIPTION, _EXIF_FOLDER, _USER_COMMENT = 0x010E, 0x8769, 0x9286
_ASCII = b"ASCII\0\0\0"
_RATE = re.compile(r"(\d{1,4}(?:\.\d{1,20})?) frames per second")


def write_webp(path: Path, frames: npt.NDArray[np.uint8], fps: float, comment: str | None) -> None:
    """Write all frames; the exact rate goes into the description and tells how often a merged frame is to repeat."""
    from PIL import Image

    exif = Image.Exif()
    exif[_DESCRIPTION] = f"{fps!r} frames per second"
    if comment is not None:
        exif.get_ifd(_EXIF_FOLDER)[_USER_COMMENT] = _ASCII + comment.encode("ascii")
    first, *others = [Image.fromarray(frame) for frame in frames]
    with path.open("wb") as file:
        first.save(
            file,
            format="WEBP",
            save_all=True,
            append_images=others,
            duration=tick_durations(len(frames), fps, 1000),
            loop=0,
            lossless=True,
            exif=exif,
        )


def read_webp(path: Path) -> Decoded:
    """Decode all frames."""
    from PIL import Image

    with Image.open(path, formats=["WEBP"]) as image:
        fps, milliseconds = _noted_rate(image), []
        frames = stack_frames(_frames(image, fps, milliseconds))
        if fps is None and sum(milliseconds):
            fps = 1000 * len(frames) / sum(milliseconds)
        return Decoded(frames, fps, _comment(image))


def iterate_webp(path: Path, start: int) -> Generator[npt.NDArray[np.uint8], None, None]:
    """Decode frame by frame, `[h, w, 3]`, those before `start` too."""
    from PIL import Image

    with Image.open(path, formats=["WEBP"]) as image:
        yield from itertools.islice(_frames(image, _noted_rate(image), []), start, None)


def read_webp_comment(path: Path) -> str | None:
    """The comment, without decoding."""
    from PIL import Image

    with Image.open(path, formats=["WEBP"]) as image:
        return _comment(image)


def _frames(image: Image.Image, fps: float | None, milliseconds: list[int]) -> Iterator[npt.NDArray[np.uint8]]:
    """All frames, with those back that the encoder merged into the equal one before them."""
    from PIL import ImageSequence

    for picture in ImageSequence.Iterator(image):
        pixels = np.asarray(picture.convert("RGB"))
        start = sum(milliseconds)
        milliseconds.append(int(picture.info.get("duration", 0)))
        repeats = 1 if fps is None else round(sum(milliseconds) * fps / 1000) - round(start * fps / 1000)
        for _ in range(max(1, repeats)):
            yield pixels


def _noted_rate(image: Image.Image) -> float | None:
    noted = _RATE.fullmatch(str(image.getexif().get(_DESCRIPTION, "")))
    return float(noted[1]) if noted else None


def _comment(image: Image.Image) -> str | None:
    comment = image.getexif().get_ifd(_EXIF_FOLDER).get(_USER_COMMENT)
    if not isinstance(comment, bytes) or not comment.startswith(_ASCII):
        return None
    return comment.removeprefix(_ASCII).decode("utf-8", errors="replace")
