"""Black bars around a picture, which are left out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from muybridge.data.clips import frames_of
from muybridge.data.crop import Box, crop_extra
from muybridge.data.preparation.looks import look_at, look_times
from muybridge.data.preparation.stage import Refused, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record
from muybridge.errors import InputFileError
from muybridge.video.encoding import Frames
from muybridge.video.picture import read_picture

_DARK = 24.0  # of 255
_FRAMES = 8


class CropSettings(StageSettings):
    """Which bars are left out."""

    ignore: float = Field(default=0.02, ge=0, lt=0.5)
    """Bars of less than this share of the height or width stay."""


@register_stage("crop")
class Crop(Stage):
    """Finds bars to the pixel: rows and columns that are dark in every frame. The file stays as it is."""

    Settings = CropSettings
    settings: CropSettings
    needs: ClassVar[frozenset[str]] = frozenset(("width", "height"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end"))
    gives: ClassVar[frozenset[str]] = frozenset(("width", "height", "crop"))

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with `crop` and the size of what is left, where there are bars. Raises Refused: unreadable."""
        if "crop" in record.extra or not _may_have_bars(look_at(record).frames):
            return [record]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say stands in `extra` since it was probed
                box = self._box(record)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error
        if box is None:
            return [record]
        return [replace(noted(record, **crop_extra(box)), width=box.width, height=box.height)]

    def _box(self, record: Record) -> Box | None:
        rows = columns = np.zeros(0, np.float32)
        for pixels in _whole_frames(record):
            gray = pixels.max(2)
            row, column = np.percentile(gray, 95, axis=1), np.percentile(gray, 95, axis=0)
            rows, columns = (row, column) if not len(rows) else (np.maximum(rows, row), np.maximum(columns, column))
        (top, height), (left, width) = self._lit(rows), self._lit(columns)
        if not height or not width or (height, width) == (len(rows), len(columns)):
            return None
        return Box(left, top, width, height, len(columns), len(rows))

    def _lit(self, brightest: npt.NDArray[np.float32]) -> tuple[int, int]:
        """Where what is lit begins, and how much there is of it: an even number, as video files have."""
        lit = np.flatnonzero(brightest >= _DARK)
        length = len(brightest)
        if not len(lit):
            return 0, 0
        first, after = int(lit[0]), int(lit[-1]) + 1
        first = 0 if first < self.settings.ignore * length else first
        after = length if length - after < self.settings.ignore * length else after
        if (first, after) == (0, length):
            return 0, length
        return first, (after - first) // 2 * 2


def _may_have_bars(frames: Frames) -> bool:
    brightest = frames.max(0)
    edges = (brightest[0], brightest[-1], brightest[:, 0], brightest[:, -1])
    return any(np.percentile(edge, 90) < _DARK for edge in edges)


def _whole_frames(record: Record) -> Iterator[Frames]:
    if record.kind == "image":
        return iter([np.asarray(read_picture(record.source, record.name))])
    times = look_times(record)
    chosen = [times[math.floor(index * len(times) / _FRAMES)] for index in range(_FRAMES)]
    return frames_of(record, sorted(set(chosen)))
