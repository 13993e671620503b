"""The part of a clip's picture that is meant, where it is not all of it."""

from __future__ import annotations

import math
from typing import NamedTuple

from muybridge.errors import InputFileError
from muybridge.types import SettingsDict, SettingsView
from muybridge.video.encoding import Frames

CROP = "crop"
"""Under this name `extra` says which part of the picture a record means; its width and height are those of the part."""


class Box(NamedTuple):
    """A part of a picture, in pixels of the upright picture.

    Attributes:
        left: columns before it.
        top: rows above it.
        width: of it.
        height: of it.
        of_width: of the whole picture.
        of_height: likewise.
    """

    left: int
    top: int
    width: int
    height: int
    of_width: int
    of_height: int

    def cut(self, pixels: Frames) -> Frames:
        """Of a picture `[h, w, ...]`, which may be scaled, the part; nothing that lies outside is in it."""
        down, across = pixels.shape[0] / self.of_height, pixels.shape[1] / self.of_width
        top, left = math.ceil(self.top * down), math.ceil(self.left * across)
        bottom = max(top + 1, math.floor((self.top + self.height) * down))
        right = max(left + 1, math.floor((self.left + self.width) * across))
        return pixels[top:bottom, left:right]

    def cover_whole(self, cover: tuple[int, int] | None) -> tuple[int, int] | None:
        """How large (height, width) the whole picture must be for the part to cover a size."""
        if cover is None:
            return None
        scale = max((cover[0] + 2) / self.height, (cover[1] + 2) / self.width)
        return math.ceil(self.of_height * scale), math.ceil(self.of_width * scale)


def box_of(extra: SettingsView) -> Box | None:
    """What a record's `extra` says."""
    found = extra.get(CROP)
    return None if found is None else Box(*found)


def check_box(values: object) -> None:
    """Raises InputFileError for anything but None and what `crop_extra` says: a part that lies inside its picture."""
    if values is None:
        return
    numbers = list(values) if isinstance(values, list | tuple) else []
    if len(numbers) != len(Box._fields) or not all(type(number) is int for number in numbers):
        raise InputFileError(
            f"extra.{CROP} must be {len(Box._fields)} whole numbers ({', '.join(Box._fields)}); given {values!r}", "row"
        )
    box = Box(*numbers)
    is_inside = box.left + box.width <= box.of_width and box.top + box.height <= box.of_height
    if min(box.left, box.top) < 0 or min(box.width, box.height) < 1 or not is_inside:
        raise InputFileError(f"extra.{CROP} must be a part inside its picture; given {numbers}", "row")


def id_with_crop(record_id: str, extra: SettingsView) -> str:
    """What a record shows, as a file may be named: its id, and which part of the picture where that is not all."""
    box = box_of(extra)
    return record_id if box is None else f"{record_id}-{'-'.join(map(str, box))}"


def crop_extra(box: Box) -> SettingsDict:
    """What a record's `extra` says of a part."""
    return {CROP: list(box)}
