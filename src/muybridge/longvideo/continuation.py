"""Runs the segments of a long video one after the other, and goes on where an earlier run stopped."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from muybridge.errors import ConfigError, ShapeError
from muybridge.longvideo.drift import DriftReport, SegmentStatistics, measure_segment
from muybridge.longvideo.joining import Join, join_frames
from muybridge.longvideo.plan import Segment
from muybridge.longvideo.seeds import segment_seed
from muybridge.longvideo.work_folder import ContinuationSettings, WorkFolder
from muybridge.video.checks import check_frames

if TYPE_CHECKING:
    from torch import Tensor

Frames = npt.NDArray[np.uint8]
_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class Carry:
    """What a segment gets from the video so far.

    Attributes:
        frames: the last `num_known` frames of the video, joined, `uint8 [n, h, w, 3]`. They may be changed.
        latents: what the generator handed back with the segment before; on the CPU where that was read from disk.
    """

    frames: Frames
    latents: Tensor | None


class SegmentGenerator(Protocol):
    """Makes one segment; the same arguments must give the same frames, or a continued run differs from another."""

    def __call__(self, segment: Segment, carried: Carry | None, seed: int, /) -> tuple[Frames, Tensor | None]:
        """Make a segment.

        Args:
            segment: how many frames, how many of them known, and which keyframes apply.
            carried: what comes before; None for the first segment.
            seed: for this segment alone.

        Returns:
            All its frames, `uint8 [num_frames, h, w, 3]`, the known ones included, and latents to carry to the next
            segment, or None.
        """
        ...


class FrameSink(Protocol):
    """Where finished frames go; an open `VideoWriter` is one."""

    def write(self, frames: Frames, /) -> None:
        """Take frames, `uint8 [n, h, w, 3]`."""
        ...


@dataclass(frozen=True)
class ContinuedVideo:
    """What a run of `continue_video` came to.

    Attributes:
        num_frames: frames of the video.
        num_segments: segments it is made of.
        num_made: how many of these this run made; the others were there.
        drift: how the new frames of each segment compare with those of the first.
    """

    num_frames: int
    num_segments: int
    num_made: int
    drift: DriftReport


def continue_video(
    generate: SegmentGenerator,
    plan: Iterable[Segment],
    folder: str | os.PathLike[str],
    output: FrameSink | None,
    settings: ContinuationSettings,
    redo: Collection[int] = (),
    is_following_redone: bool = False,
) -> ContinuedVideo:
    """Make a long video segment by segment, each from the end of the one before.

    Every finished segment is stored in `folder` before the next begins. The same call in the same folder, after an
    interruption or just so, makes only what is missing, and the video is the one that an undisturbed run gives. A plan
    may be longer than before, as long as the finished segments are in it unchanged. Memory holds one segment and the
    frames that the next one shares with it, however long the video is.

    A plan without end stops with the generator's exception, or where the caller cuts it (`itertools.islice`); the
    folder keeps what is finished. Each segment is planned one ahead of being made.

    Args:
        generate: makes a segment.
        plan: see `plan_segments`.
        folder: holds the finished segments; made if it is not there. One run at a time may use it.
        output: gets the frames of the video in order, those of finished segments too; None only fills the folder.
        settings: what the segments are made with; those in the folder must have been made with the same.
        redo: segments to make anew, each with a new seed. To go on after an interruption, leave it out again.
        is_following_redone: whether all segments after those of `redo` are made anew too, from the new frames but with
            the seeds they had. If not, they stay as they are, and the picture may jump where the redone one ends.

    Raises:
        ConfigError: other settings or another plan than those of the finished segments (names what differs), a segment
            to redo that was never made, or a plan that leaves a gap.
        ShapeError: the generator made frames of another number, size or type than the segment asks for.
        OutputError: the folder cannot be written.
        InputFileError: a finished segment cannot be read.
    """
    if is_following_redone and not redo:
        raise ConfigError("is_following_redone has no effect without segments in redo. Name one, or leave it out.")
    work = WorkFolder(folder, settings)
    work.mark_for_redo(redo, is_following_redone)
    maker = _Maker(generate, work, settings.seed)
    video = _Growing(settings.join)
    for segment, following in _with_next(plan):
        _check_place(segment, len(video.statistics), video.num_frames)
        num_held = following.num_known if following is not None else 0
        # Without a name for the frames, which would keep them in memory while the next segment is made.
        complete = video.add(segment, maker.frames(segment, video.tail), num_held)
        if output is not None:
            output.write(complete)
        del complete
    return ContinuedVideo(video.num_frames, len(video.statistics), maker.num_made, DriftReport(tuple(video.statistics)))


def missing_segments(
    plan: Iterable[Segment],
    folder: str | os.PathLike[str],
    settings: ContinuationSettings,
    redo: Collection[int] = (),
    is_following_redone: bool = False,
) -> list[int]:
    """Which segments the same call of `continue_video` would make, by index; those of `redo` are marked for it here.

    Raises:
        ConfigError: as `continue_video`, for settings or a plan that are not those of the finished segments.
        OutputError: likewise.
        InputFileError: likewise.
    """
    work = WorkFolder(folder, settings)
    work.mark_for_redo(redo, is_following_redone)
    return [segment.index for segment in plan if work.finished(segment) is None]


class _Growing:
    """The end of the video so far.

    Attributes:
        tail: its last frames, those that the next segment shares; None before the first.
        num_frames: how many it has.
        statistics: of the new frames of each segment.
    """

    def __init__(self, join: Join) -> None:
        self._join: Join = join
        self.tail: Frames | None = None
        self.num_frames = 0
        self.statistics: list[SegmentStatistics] = []

    def add(self, segment: Segment, frames: Frames, num_held: int) -> Frames:
        """Join a segment, hold back the last `num_held` frames for the next, and return what is complete before."""
        self.statistics.append(measure_segment(segment.index, frames[segment.add_start : segment.add_stop]))
        shown = frames[: segment.add_stop]
        joined = shown[segment.add_start :] if self.tail is None else join_frames(self.tail, shown, self._join)
        if num_held > len(joined):
            raise ConfigError(
                f"Segment {segment.index} leaves {len(joined)} frames, and the next needs {num_held}. "
                "Use plan_segments."
            )
        self.num_frames = segment.stop
        # A copy, since a view would keep the whole segment in memory.
        self.tail = joined[len(joined) - num_held :].copy()
        return joined[: len(joined) - num_held]


class _Maker:
    """Takes a segment from the folder, or makes and stores it."""

    def __init__(self, generate: SegmentGenerator, work: WorkFolder, seed: int) -> None:
        self._generate = generate
        self._work = work
        self._seed = seed
        self._latents: Tensor | None = None
        self._latents_of = -1
        self.num_made = 0

    def frames(self, segment: Segment, tail: Frames | None) -> Frames:
        """All frames of the segment; `tail` are the frames of the video that it shares, None for the first."""
        if self._work.finished(segment) is not None:
            return self._work.load_frames(segment)
        seed = segment_seed(self._seed, segment.index, self._work.attempt(segment.index))
        carried = None if tail is None else Carry(tail.copy(), self._latents_before(segment.index))
        frames, latents = self._generate(segment, carried, seed)
        _check_frames(segment, frames, tail)
        self._work.save(segment, frames, latents)
        self._latents, self._latents_of = latents, segment.index
        self.num_made += 1
        return frames

    def _latents_before(self, index: int) -> Tensor | None:
        return self._latents if self._latents_of == index - 1 else self._work.load_latents(index - 1)


def _with_next(items: Iterable[_Item]) -> Iterator[tuple[_Item, _Item | None]]:
    """Each item and the one after it, None after the last."""
    this, ahead = itertools.tee(items)
    return zip(this, itertools.chain(itertools.islice(ahead, 1, None), [None]), strict=False)


def _check_place(segment: Segment, index: int, num_frames: int) -> None:
    if segment.index != index or (index > 0) != (segment.num_known > 0):
        raise ConfigError(
            f"Segment {index} of the plan has the index {segment.index} and {segment.num_known} known frames. Indexes "
            "count from 0, and all segments but the first continue the one before. Use plan_segments."
        )
    known_until = segment.start + segment.num_known
    if index > 0 and not known_until == segment.start + segment.add_start == num_frames:
        raise ConfigError(
            f"Segment {index} of the plan goes on at frame {known_until}, and the video has {num_frames} by then. "
            "Use plan_segments."
        )


def _check_frames(segment: Segment, frames: Frames, tail: Frames | None) -> None:
    check_frames(frames)
    size = list(frames.shape[1:3]) if tail is None else list(tail.shape[1:3])
    expected = [segment.num_frames, *size, 3]
    if list(frames.shape) != expected:
        raise ShapeError(
            f"Segment {segment.index} must be {expected}; the generator made {list(frames.shape)}. Make as many frames "
            "as the segment asks for, the known ones included, and all segments of one size."
        )
