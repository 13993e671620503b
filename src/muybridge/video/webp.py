"""Animated WebP, lossless."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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


def webp_rate(image: Image.Image) -> float | None:
    """Frames per second that `write_webp` noted in an opened file."""
    noted = _RATE.fullmatch(str(image.getexif().get(_DESCRIPTION, "")))
    return float(noted[1]) if noted else None


def webp_comment(image: Image.Image) -> str | None:
    """The comment of an opened file."""
    comment = image.getexif().get_ifd(_EXIF_FOLDER).get(_USER_COMMENT)
    if not isinstance(comment, bytes) or not comment.startswith(_ASCII):
        return None
    return comment.removeprefix(_ASCII).decode("utf-8", errors="replace")
