"""Frames of a record as models look at them: evenly spaced in time, the first and the last among them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from muybridge.data.clips import frames_of
from muybridge.data.crop import box_of
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError
from muybridge.video.picture import read_picture


def spread_times(record: Record, count: int) -> list[float]:
    """So many times in the file of a video: in the middle for one, else from its first frame to its last.

    Raises:
        ConfigError: it was not probed.
    """
    duration, rate = record.duration_s, record.fps
    if duration is None or not rate:
        raise ConfigError(f"How long {record.name} lasts is not known; probe it first.")
    room = max(0.0, duration - min(1 / rate, duration))
    if count == 1:
        return [record.start + room / 2]
    return [record.start + room * place / (count - 1) for place in range(count)]


def spread_frames(record: Record, count: int, side: int | None = None) -> list[Image.Image]:
    """So many frames of a video, or the one of a picture.

    Args:
        record: probed.
        count: of frames.
        side: most width and height that they are scaled down to.

    Raises:
        InputFileError: its file cannot be read.
        ConfigError: it was not probed.
    """
    if record.kind == "image":
        try:
            return [_fitted(_part(record, read_picture(record.source, record.name)), side)]
        except ConfigError as error:
            raise InputFileError(str(error), "unusable") from error
    return [_fitted(Image.fromarray(pixels), side) for pixels in _shown(record, count, side)]


def _shown(record: Record, count: int, side: int | None) -> Iterator[np.ndarray]:
    cover = None
    if side is not None and record.width and record.height:
        scale = min(1.0, side / max(record.width, record.height))
        cover = (math.ceil(record.height * scale), math.ceil(record.width * scale))
    for pixels in frames_of(record, spread_times(record, count), cover):
        yield np.ascontiguousarray(pixels)


def _part(record: Record, picture: Image.Image) -> Image.Image:
    box = box_of(record.extra)
    return picture if box is None else Image.fromarray(np.ascontiguousarray(box.cut(np.asarray(picture))))


def _fitted(picture: Image.Image, side: int | None) -> Image.Image:
    picture = picture.convert("RGB")
    if side is not None:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture
