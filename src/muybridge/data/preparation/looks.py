"""Small grey frames of a clip, eight a second, which several stages measure."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muybridge.data.clips import distinct_frames_of
from muybridge.data.crop import box_of
from muybridge.data.preparation.stage import Refused
from muybridge.data.record import PACKED, Record
from muybridge.errors import ConfigError, InputFileError
from muybridge.video.picture import read_picture

PER_SECOND = 8
SIDE = 320
"""Pixels of the longer side."""
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)

Grays = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Look:
    """What a clip looks like.

    Attributes:
        times: at which each frame comes up, in seconds; a frame that is shown longer is there once.
        frames: `[n, h, w]`, upright, at most `SIDE` pixels a side.
        of_size: height and width that the frames have in the file.
    """

    times: tuple[float, ...]
    frames: Grays
    of_size: tuple[int, int]


def look_at(record: Record) -> Look:
    """Decode a clip, unless it is the one that was looked at last.

    Raises:
        Refused: its file cannot be read.
        ConfigError: it was not probed.
    """
    if record.width is None or record.height is None:
        raise ConfigError(f"The size of {record.name} is not known; probe it first.")
    return _look(_Subject(record))


class _Subject:
    """A record as far as its look depends on it, and on its file, which may have changed since."""

    def __init__(self, record: Record) -> None:
        self.record = record
        place = record.media
        stat = Path(place).stat() if os.path.exists(place) else None  # noqa: PTH110  # any bytes are a name
        stamp = (stat.st_mtime_ns, stat.st_size) if stat else None
        crop, packed = record.extra.get("crop"), record.extra.get(PACKED)
        self._key = (place, repr(packed), repr(crop), record.start, record.duration_s, record.width, stamp)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Subject) and other._key == self._key


@lru_cache(maxsize=1)
def _look(subject: _Subject) -> Look:
    record = subject.record
    height, width = record.height or 1, record.width or 1
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say stands in `extra` since it was probed
            found = [(time, _gray(pixels, size)) for time, pixels in _shown(record, size)]
    except InputFileError as error:
        raise Refused(error.fault, str(error), "unreadable") from error
    return Look(tuple(time for time, _ in found), np.stack([frame for _, frame in found]), (height, width))


def _shown(record: Record, size: tuple[int, int]) -> list[tuple[float, npt.NDArray[np.uint8]]]:
    if record.kind == "image":
        pixels = np.asarray(read_picture(record.source, record.name))
        box = box_of(record.extra)
        return [(0.0, pixels if box is None else box.cut(pixels))]
    return list(distinct_frames_of(record, look_times(record), size))


def look_times(record: Record) -> list[float]:
    """Seconds at which a clip is looked at. Raises ConfigError: it was not probed."""
    seconds = record.duration_s
    if seconds is None or not record.fps:
        raise ConfigError(f"How long {record.name} lasts is not known; probe it first.")
    # The last one is early enough for a frame to be there, whatever was rounded.
    last = max(0.0, seconds - 0.5 / record.fps)
    return [record.start + index / PER_SECOND for index in range(math.floor(last * PER_SECOND) + 1)]


def _gray(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> Grays:
    from PIL import Image

    gray = (pixels.astype(np.float32) @ _LUMA + 0.5).astype(np.uint8)
    if gray.shape == size:
        return gray
    return np.asarray(Image.fromarray(gray).resize((size[1], size[0]), Image.Resampling.BOX))
