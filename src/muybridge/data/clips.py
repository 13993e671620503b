"""The frames of a clip: at exact times, cut to a size, and drawn such that the same draw gives the same frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from muybridge.data.crop import box_of
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError
from muybridge.types import VideoShape
from muybridge.video.encoding import Frames
from muybridge.video.moments import distinct_frames_at, frames_at
from muybridge.video.picture import read_picture


@dataclass(frozen=True)
class Draw:
    """What is left to chance about a clip, as numbers from 0 to 1.

    Attributes:
        start: of the times at which it could begin.
        left: of the places of the crop's left edge.
        top: of those of its top edge.
        mirrored: whether it is seen in a mirror.
    """

    start: float = 0.5
    left: float = 0.5
    top: float = 0.5
    mirrored: bool = False


def draw_clip(record_id: str, key: tuple[int, ...], is_crop_random: bool = False, may_flip: bool = False) -> Draw:
    """The draw of a record.

    Args:
        record_id: whose.
        key: numbers such as seed and epoch; the same ones give the same draw on any machine and in any order.
        is_crop_random: whether the crop is drawn; else it is in the middle.
        may_flip: whether half of the clips are mirrored.
    """
    text = "\0".join((record_id, *map(str, key)))
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    start, left, top, side = (int.from_bytes(digest[i : i + 8], "big") / 2**64 for i in range(0, 32, 8))
    crop = (left, top) if is_crop_random else (0.5, 0.5)
    return Draw(start, *crop, mirrored=may_flip and side < 0.5)


def clip_times(record: Record, num_frames: int, spacing_s: float, draw: Draw) -> list[float]:
    """When the frames of a clip are shown in its file, in seconds; each is `spacing_s` after the one before.

    Raises:
        ConfigError: the record was not probed, or does not last so long.
    """
    duration, rate = record.duration_s, record.fps
    if duration is None or not rate:
        raise ConfigError(f"How long {record.name} lasts is not known; probe it first.")
    # The last time at which something new is shown, so that no draw asks for what is after the end.
    room = duration - (num_frames - 1) * spacing_s - min(1 / rate, duration)
    if room < -1 / rate:
        raise ConfigError(
            f"{record.name} lasts {duration:g} s, too short for {num_frames} frames {spacing_s:g} s apart."
        )
    start = record.start + draw.start * max(room, 0.0)
    return [start + index * spacing_s for index in range(num_frames)]


def read_clip(record: Record, shape: VideoShape, spacing_s: float, draw: Draw) -> Frames:
    """Frames of a record, `uint8 [f, h, w, 3]`: scaled until they cover the size, cut to it, and never stretched.

    Raises:
        InputFileError: its file cannot be read.
        ConfigError: as `clip_times`; or several frames of a picture.
    """
    return np.stack([_cut(pixels, shape, draw) for pixels in _frames(record, shape, spacing_s, draw)])


def frames_of(record: Record, times_s: Sequence[float], cover: tuple[int, int] | None = None) -> Iterator[Frames]:
    """Frames of a video's record at times in its file, cut to the part of the picture that it means.

    See `video.moments.frames_at` for the times, `cover`, and what is raised.
    """
    box = box_of(record.extra)
    if box is None:
        return frames_at(record.source, times_s, record.fps, cover)
    return map(box.cut, frames_at(record.source, times_s, record.fps, box.cover_whole(cover)))


def distinct_frames_of(
    record: Record, times_s: Sequence[float], cover: tuple[int, int] | None = None
) -> Iterator[tuple[float, Frames]]:
    """As `frames_of`, each with the time at which it comes up in the file, and none twice."""
    box = box_of(record.extra)
    whole = cover if box is None else box.cover_whole(cover)
    for time_s, pixels in distinct_frames_at(record.source, times_s, record.fps, whole):
        yield time_s, pixels if box is None else box.cut(pixels)


def _frames(record: Record, shape: VideoShape, spacing_s: float, draw: Draw) -> Iterator[Frames]:
    if record.kind == "video":
        times = clip_times(record, shape.num_frames, spacing_s, draw)
        return frames_of(record, times, (shape.height, shape.width))
    if shape.num_frames != 1:
        raise ConfigError(f"{record.name} is a picture and has one frame, not {shape.num_frames}.")
    try:
        pixels = np.asarray(read_picture(record.source, record.name))
    except ConfigError as error:
        raise InputFileError(str(error), "unusable") from error
    box = box_of(record.extra)
    return iter([pixels if box is None else box.cut(pixels)])


def _cut(pixels: Frames, shape: VideoShape, draw: Draw) -> Frames:
    height, width = pixels.shape[:2]
    scale = max(shape.height / height, shape.width / width)
    kept_height, kept_width = shape.height / scale, shape.width / scale
    left, top = draw.left * (width - kept_width), draw.top * (height - kept_height)
    if scale == 1:  # whole pixels are kept as they are
        left, top = round(left), round(top)
    box = (left, top, min(left + kept_width, width), min(top + kept_height, height))
    size = (shape.width, shape.height)
    cut = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=box))
    return cut[:, ::-1] if draw.mirrored else cut
