"""Frames of a video file as its decoder gives them, with their times, going on after damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muybridge.errors import InputFileError
from muybridge.video.container import open_input, picture_track
from muybridge.video.media import MediaFile

Places = npt.NDArray[np.intp]

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

EARLY_S = 1e-3
"""What rounding to milliseconds does to times."""


class RawFrames:
    """Iterates over (seconds from the file's first frame, frame), in the order of display; once.

    Frames are neither turned nor converted. One frame is to be done with before the next is taken.

    Attributes:
        num_packets: that were decoded so far.
        num_bad: of these, how many could not be, or gave a damaged frame.
    """

    def __init__(
        self, source: MediaFile, start_s: float = 0.0, end_s: float | None = None, is_rough: bool = False
    ) -> None:
        """Nothing is opened before the first frame is asked for.

        Args:
            source: a video file, of those that FFmpeg reads.
            start_s: of the first frame.
            end_s: the first frame from then on is left out, and all after it.
            is_rough: whether edges of blocks stay as they are coded, which is a fifth faster.
        """
        self._source, self._is_rough = source, is_rough
        self._start_s, self._end_s = start_s, end_s
        self.num_packets = self.num_bad = 0

    def __iter__(self) -> Iterator[tuple[float, VideoFrame]]:
        """Raises InputFileError: it is no video, or does not time its frames; and whatever a decoder raises."""
        is_first = True
        for time_s, frame in self._from(self._start_s) if self._start_s > 0 else iter(()):
            if is_first and time_s > self._start_s + EARLY_S:
                break  # not every kind of file finds a keyframe before
            is_first = False
            yield time_s, frame
        if is_first:
            self.num_packets = self.num_bad = 0
            yield from self._from(0.0)

    def _from(self, seek_s: float) -> Iterator[tuple[float, VideoFrame]]:
        with self._source.open("rb") as file:
            yield from self._decoded(file, seek_s)

    def _decoded(self, file: IO[bytes], seek_s: float) -> Iterator[tuple[float, VideoFrame]]:
        import av

        with open_input(file) as container:
            stream = picture_track(container)
            if stream.time_base is None or stream.start_time is None:
                raise InputFileError("It does not say when its frames are shown. Save it anew, as mp4.", "no-times")
            stream.codec_context.thread_type = "NONE"
            if self._is_rough:
                stream.codec_context.options = {"skip_loop_filter": "all"}
            if seek_s > 0:
                try:
                    container.seek(stream.start_time + int(seek_s / stream.time_base), stream=stream)
                except av.FFmpegError:  # a kind of file that can only be read from its beginning
                    return
            for frame in self._frames(container, stream):
                time_s = float(((frame.pts or 0) - stream.start_time) * stream.time_base)
                if self._end_s is not None and time_s >= self._end_s - EARLY_S:
                    return
                if time_s >= self._start_s - EARLY_S:
                    yield time_s, frame

    def _frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        import av

        for packet in container.demux(stream):
            self.num_packets += bool(packet.size)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.num_bad += bool(packet.size)
                continue
            self.num_bad += sum(frame.is_corrupt for frame in frames)
            yield from frames


def luma_levels(frame: VideoFrame, rows: Places, columns: Places) -> npt.NDArray[np.float32]:
    """Brightness of the pixels where `rows` and `columns` meet, from 0, black, to 255, white; nothing is turned."""
    places = np.ix_(rows, columns)
    if not _is_plain(frame):
        return frame.reformat(format="gray").to_ndarray()[places].astype(np.float32)  # which is of full range
    bits = frame.format.components[0].bits
    plane = np.frombuffer(memoryview(frame.planes[0]), np.uint16 if bits > 8 else np.uint8).reshape(frame.height, -1)
    levels = plane[places].astype(np.float32)
    if bits > 8:
        levels /= np.float32(2 ** (bits - 8))
    return levels if _is_full_range(frame) else (levels - 16) * np.float32(255 / 219)


def _is_plain(frame: VideoFrame) -> bool:
    """Whether its brightness lies by itself, in numbers of this machine."""
    kind = frame.format
    is_known = kind.name.startswith(("yuv", "nv")) and kind.is_planar and "msb" not in kind.name
    return is_known and not kind.is_big_endian


def _is_full_range(frame: VideoFrame) -> bool:
    from av.video.reformatter import ColorRange

    return int(frame.color_range) == int(ColorRange.JPEG) or frame.format.name.startswith("yuvj")
