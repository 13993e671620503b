"""Where a video's scenes begin and end, to the frame."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from muybridge.video.decoded import reading
from muybridge.video.media import MediaFile
from muybridge.video.moments import timed_frames
from muybridge.video.raw_frames import EARLY_S, RawFrames, luma_levels
from muybridge.video.reading import reader_of

if TYPE_CHECKING:
    from av import VideoFrame

Thumbnail = npt.NDArray[np.float32]
FLASH_FRAMES = 3
"""How many frames a flash lasts at most."""
_ROWS, _COLUMNS, _SAMPLES = 18, 32, 4  # means, and samples of each along a side
_GOLDEN = (5**0.5 - 1) / 2  # of whose multiples the fractions are spread evenly
_SAME = 15.0  # mean difference of thumbnails, of 255: measured 2 to 5 across a flash, over 30 across a cut
_SHARE = 0.5
_BLACK = 24.0


class CutDetector(Protocol):
    """Finds candidates for cuts in frames as they come."""

    def take(self, frame: VideoFrame, thumbnail: Thumbnail) -> None:
        """The next frame, and a few means of its brightness from 0 to 255."""
        ...

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin something new; the first frame is 0. To be asked at the end, once."""
        ...


@dataclass
class Scan:
    """What was found in a video by decoding it once.

    Attributes:
        times: of all frames, in seconds from the file's first one.
        cuts: numbers of the frames that begin something new.
        black: (first frame, the one after the last) of each run of black frames.
        num_packets: that were decoded.
        num_bad: of these, how many were damaged.
    """

    times: list[float] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    black: list[tuple[int, int]] = field(default_factory=list)
    num_packets: int = 0
    num_bad: int = 0

    def scenes(self) -> list[tuple[int, int]]:
        """(first frame, the one after the last) of each scene; black between scenes is of none.

        What is black from end to end is one scene, for whoever looks at it to say so.
        """
        edges = {0, len(self.times), *self.cuts}
        gaps = [run for run in self.black if run[1] - run[0] > FLASH_FRAMES or edges.intersection(run)]
        dark = {index for start, end in gaps for index in range(start, end)}
        edges.update(edge for gap in gaps for edge in gap)
        marks = sorted(edges)
        lit = [(start, end) for start, end in itertools.pairwise(marks) if start not in dark]
        return lit or [(0, len(self.times))]


def scan(
    source: MediaFile,
    detector: CutDetector,
    span: tuple[float, float | None] = (0.0, None),
    fps: float | None = None,
    drops_flashes: bool = True,
) -> Scan:
    """Decode a part of a video once and find its scenes.

    Args:
        source: a video file, an animated picture, or a folder of numbered pictures.
        detector: proposes cuts.
        span: seconds at which the part begins and ends; None for the end of the file.
        fps: the rate of a folder of pictures that notes none.
        drops_flashes: whether a cut is dropped after which, within a few frames, all is as before.

    Raises:
        InputFileError: it cannot be read.
    """
    found = Scan()
    flashes = _Flashes()
    is_black: list[bool] = []
    with reading(source), contextlib.closing(_frames(source, span, fps, found)) as frames:
        for time_s, frame in frames:
            thumbnail = _thumbnail(frame)
            found.times.append(time_s)
            is_black.append(float(thumbnail.max()) < _BLACK)
            flashes.take(thumbnail)
            detector.take(frame, thumbnail)
        candidates = detector.cuts()
    found.cuts = [cut for cut in candidates if not (drops_flashes and cut in flashes.ends)]
    found.black = list(_runs(is_black))
    return found


def _frames(
    source: MediaFile, span: tuple[float, float | None], fps: float | None, found: Scan
) -> Generator[tuple[float, VideoFrame], None, None]:
    if reader_of(source).is_container:
        raw = RawFrames(source, *span, is_rough=True)
        yield from raw
        found.num_packets, found.num_bad = raw.num_packets, raw.num_bad
        return
    import av

    start_s, end_s = span
    for frame in timed_frames(source, start_s, fps):
        if end_s is not None and frame.start_s >= end_s - EARLY_S:
            return
        if frame.start_s >= start_s - EARLY_S:
            yield frame.start_s, av.VideoFrame.from_ndarray(frame.pixels, format="rgb24").reformat(format="yuv444p")


def _thumbnail(frame: VideoFrame) -> Thumbnail:
    """A few means of its brightness."""
    (rows, high), (columns, wide) = _places(frame.height, _ROWS), _places(frame.width, _COLUMNS)
    levels = luma_levels(frame, rows, columns)
    return levels.reshape(len(rows) // high, high, len(columns) // wide, wide).mean((1, 3))


@functools.lru_cache(maxsize=16)
def _places(length: int, most: int) -> tuple[npt.NDArray[np.intp], int]:
    """Where along a side brightness is looked at, and how many of the places make one mean.

    Their distances are irregular: hard edges in regular distances, as of tiles or letters, that pass a regular grid
    change many samples in one frame and none in the next, as cuts do.
    """
    count = min(most, length)
    each = min(_SAMPLES, length // count)
    step = length / (count * each)
    within = np.arange(count * each) * _GOLDEN % 1
    return np.floor((np.arange(count * each) + within) * step).astype(np.intp), each


class _Flashes:
    """Frames before which something else was shown for a moment only, or that begin such a moment."""

    def __init__(self) -> None:
        self.ends: set[int] = set()
        self._last: deque[Thumbnail] = deque(maxlen=2 * FLASH_FRAMES + 2)
        self._count = 0

    def take(self, thumbnail: Thumbnail) -> None:
        """Decides on the frame `FLASH_FRAMES` before this one."""
        self._last.append(thumbnail)
        self._count += 1
        middle = len(self._last) - 1 - FLASH_FRAMES
        if middle < 1:
            return
        jump = thumbnail_distance(self._last[middle - 1], self._last[middle])
        same = min(_SAME, _SHARE * jump)
        if jump < _SAME / 2:
            return  # nothing that anybody would take for a cut
        pairs = ((middle - 1 - j, middle + j) for j in range(1, FLASH_FRAMES + 1) if middle - 1 - j >= 0)
        if any(thumbnail_distance(self._last[before], self._last[after]) < same for before, after in pairs):
            self.ends.add(self._count - 1 - FLASH_FRAMES)


def thumbnail_distance(one: Thumbnail, other: Thumbnail) -> float:
    """Mean difference, of 255; all of it where their sizes differ."""
    if one.shape != other.shape:
        return 255.0
    return float(np.abs(one - other).mean())


def _runs(marks: Iterable[bool]) -> Iterator[tuple[int, int]]:
    start: int | None = None
    end = 0
    for end, mark in enumerate([*marks, False]):  # the last one closes the last run
        if mark and start is None:
            start = end
        elif not mark and start is not None:
            yield start, end
            start = None
