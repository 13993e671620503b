"""Pictures of a finished video: one to show it by, and a sheet to leaf through it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from muybridge.video import read_frames

_THUMBNAIL_PX = 512
_SHEET_FRAMES = 16
_SHEET_PX = 160


def write_stills(video: Path, num_frames: int, folder: Path) -> dict[str, Path]:
    """Write `thumbnail`, the first frame, and `spritesheet`, up to 16 frames in rows of four.

    Args:
        video: the file.
        num_frames: that it has.
        folder: to write to.
    """
    count = min(_SHEET_FRAMES, num_frames)
    wanted = {round(each) for each in np.linspace(0, num_frames - 1, count)}
    first, shown = _frames(video, wanted)
    paths = {"thumbnail": folder / "thumbnail.webp", "spritesheet": folder / "spritesheet.jpg"}
    _fitted(first, _THUMBNAIL_PX).save(paths["thumbnail"], quality=85)
    _sheet(shown).save(paths["spritesheet"], quality=85)
    return paths


def _frames(video: Path, wanted: set[int]) -> tuple[Image.Image, list[Image.Image]]:
    """The first frame, and small ones of all that are wanted; memory does not grow with the video."""
    first: Image.Image | None = None
    shown: list[Image.Image] = []
    start = 0
    for piece in read_frames(video):
        first = first or _picture(piece[0])
        shown += [_fitted(_picture(piece[each - start]), _SHEET_PX) for each in sorted(wanted & _span(start, piece))]
        start += len(piece)
    if first is None:  # a reader raises before that
        first = Image.new("RGB", (1, 1))
    return first, shown or [first]


def _span(start: int, piece: npt.NDArray[np.uint8]) -> set[int]:
    return set(range(start, start + len(piece)))


def _picture(frame: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(frame)


def _fitted(picture: Image.Image, longest: int) -> Image.Image:
    scale = longest / max(picture.size)
    if scale >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _sheet(pictures: list[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    columns = min(4, len(pictures))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return sheet
