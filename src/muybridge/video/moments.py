"""The frames that are shown at given times."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from muybridge.errors import ConfigError, InputFileError
from muybridge.video.container import open_input, picture_track, upright_frames
from muybridge.video.decoded import LazyFrame, reading
from muybridge.video.encoding import Frames
from muybridge.video.media import MediaFile
from muybridge.video.picture_folder import open_picture_folder
from muybridge.video.reading import reader_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_EARLY_S = 1e-3
"""How much before its time a frame may be asked for: what rounding to milliseconds does to it and to the first."""


def frames_at(
    source: MediaFile, times_s: Sequence[float], fps: float | None = None, cover: tuple[int, int] | None = None
) -> Iterator[Frames]:
    """The frame shown at each of several times, `uint8 [h, w, 3]`, as a player shows it; the same one if nothing moves.

    A video file is decoded from the keyframe before the first time on, without threads of its own.

    Args:
        source: a video file, an animated picture, or a folder of numbered pictures.
        times_s: seconds from the first frame on, in ascending order.
        fps: the rate of a folder of pictures that notes none.
        cover: a height and width: frames may come as small as covers them, with their ratio, which is faster.

    Raises:
        ConfigError: times that are none, below 0, or not ascending; at once.
        InputFileError: the file is damaged, no video, does not time its frames, or ends before the last time; when the
            iterator gets there.
    """
    _check_times(times_s)
    return _frames_at(source, times_s, fps, cover)


def _check_times(times_s: Sequence[float]) -> None:
    if not times_s or times_s[0] < 0 or any(after < before for before, after in itertools.pairwise(times_s)):
        raise ConfigError(f"Times of frames must be at least one, from 0 on and ascending; given {list(times_s)}.")


def _frames_at(
    source: MediaFile, times_s: Sequence[float], fps: float | None, cover: tuple[int, int] | None
) -> Iterator[Frames]:
    with reading(source), contextlib.closing(timed_frames(source, times_s[0], fps)) as frames:
        yield from (frame.covering(cover) for frame in _shown(frames, deque(times_s)))


def distinct_frames_at(
    source: MediaFile, times_s: Sequence[float], fps: float | None = None, cover: tuple[int, int] | None = None
) -> Iterator[tuple[float, Frames]]:
    """As `frames_at`, each with the time at which it comes up in the file, and none twice.

    Raises:
        ConfigError: as `frames_at`, when the iterator is asked for its first frame.
        InputFileError: likewise.
    """
    _check_times(times_s)
    last: LazyFrame | None = None
    with reading(source), contextlib.closing(timed_frames(source, times_s[0], fps)) as frames:
        for frame in _shown(frames, deque(times_s)):
            if frame is not last:
                yield frame.start_s, frame.covering(cover)
            last = frame


def timed_frames(source: MediaFile, start_s: float = 0.0, fps: float | None = None) -> Generator[LazyFrame, None, None]:
    """Frames with times from the first one of the file on, beginning at or before `start_s`.

    One frame is to be converted before the next is taken. Of a video file it goes on after damage; only converting a
    damaged frame fails.

    Args:
        source: a video file, an animated picture, or a folder of numbered pictures.
        start_s: seconds from the first frame on.
        fps: the rate of a folder of pictures that notes none.

    Raises:
        InputFileError: it is no video, or does not time its frames; and whatever a decoder raises, see `reading`.
    """
    reader = reader_of(source)
    if reader.is_container:
        return _of_container(source, start_s)
    if reader.open is open_picture_folder:
        return _of_folder(source, fps)
    return _of_animation(source)


def _of_animation(source: MediaFile) -> Generator[LazyFrame, None, None]:
    with reader_of(source).open(source) as opened:
        yield from opened.frames


def _of_folder(source: MediaFile, fps: float | None) -> Generator[LazyFrame, None, None]:
    with reader_of(source).open(source) as opened:
        rate = opened.timing.fps or fps
        if rate is None:
            raise InputFileError("It is a folder of pictures without a rate. Give one.", "no-times")
        for index, frame in enumerate(opened.frames):
            yield LazyFrame(frame.convert, index / rate, (index + 1) / rate)


def _of_container(source: MediaFile, start_s: float) -> Generator[LazyFrame, None, None]:
    if start_s > 0:
        with source.open("rb") as file, open_input(file) as container:
            frames = _from_keyframe(container, source, start_s)
            first = next(frames, None)
            # Not every kind of file finds a keyframe before.
            if first is not None and first.start_s <= start_s + _EARLY_S:
                yield first
                yield from frames
                return
    with source.open("rb") as file, open_input(file) as container:
        yield from _from_keyframe(container, source, 0.0)


def _from_keyframe(container: InputContainer, source: MediaFile, start_s: float) -> Iterator[LazyFrame]:
    import av

    stream = picture_track(container)
    if stream.time_base is None or stream.start_time is None:
        raise InputFileError("It does not say when its frames are shown. Save it anew, as mp4.", "no-times")
    stream.codec_context.thread_type = "NONE"
    unit = float(stream.time_base)
    if start_s > 0:
        try:
            container.seek(stream.start_time + int(start_s / unit), stream=stream)
        except av.FFmpegError:  # a kind of file that can only be read from its beginning
            return
    for frame in upright_frames(container, source, is_strict=False):
        start = frame.start_s - stream.start_time * unit
        yield replace(frame, start_s=start, stays_s=frame.stays_s or _period(stream))


def _period(stream: VideoStream) -> float:
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def _shown(frames: Iterator[LazyFrame], times_s: deque[float]) -> Iterator[LazyFrame]:
    """Of each time the frame, which is to be converted before the next is taken."""
    waiting: LazyFrame | None = None
    end_s = gap_s = 0.0
    for frame in frames:
        if waiting is not None:
            gap_s = max(gap_s, frame.start_s - waiting.start_s)
            yield from _until(waiting, frame.start_s, times_s)
        if frame.end_s is not None:  # it cannot be converted once the next one is there
            yield from _until(frame, frame.end_s, times_s)
        if not times_s:
            return
        waiting = frame
        end_s = frame.end_s or frame.start_s + max(frame.stays_s, gap_s)
    if waiting is None:
        raise InputFileError("It holds no frames.", "no-video")
    yield from _until(waiting, end_s + 2 * _EARLY_S, times_s)
    if times_s:
        raise InputFileError(
            f"It ends at {end_s:.4g} s, before {times_s[0]:.4g} s. Copy it again from where it came from.",
            "broken-tail",
        )


def _until(frame: LazyFrame, end_s: float, times_s: deque[float]) -> Iterator[LazyFrame]:
    while times_s and times_s[0] < end_s - _EARLY_S:
        times_s.popleft()
        yield frame
