"""Times of frames: whether they come at a constant rate, and a constant rate out of those that do not."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from muybridge.errors import InputFileError
from muybridge.video.checks import MAX_FPS, MIN_FPS
from muybridge.video.decoded import LazyFrame

_USUAL_RATES = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0, 120.0)
_NEAR = 0.015  # what rounding to milliseconds does to the time that a frame of 30 per second stays
_MOST_REPEATED = 1_000_000
"""How many frames pauses may add: more than nine hours at 30 per second."""


@dataclass(frozen=True)
class Timing:
    """How decoded frames become those of a video of constant rate.

    Attributes:
        fps: frames per second; None where the file has no rate.
        is_even: whether every decoded frame is shown once; otherwise they are repeated or left out by their times.
        last_s: seconds that the last frame stays where it does not say so itself.
        note: what has to be said of uneven times.
        num_frames: how many the file has; None where they were not counted.
        duration_s: seconds from the first frame until the last one goes; None where the file does not time them.
    """

    fps: float | None
    is_even: bool = True
    last_s: float = 0.0
    note: str | None = None
    num_frames: int | None = None
    duration_s: float | None = None


def measure(
    times: Sequence[float], last_s: float, tick_s: float, declared: float | None = None, is_end_sure: bool = False
) -> Timing:
    """Find the rate of frames.

    It is constant where each frame comes within half a frame of its place: then none is repeated or left out.
    Otherwise it is that of the middle one of all distances, so that motion keeps its speed and pauses their length.

    Args:
        times: in seconds, of the frames in the order of display.
        last_s: how long the last one stays, 0 where that is not known.
        tick_s: the unit in which the file counts time.
        declared: frames per second as the file says, if it does.
        is_end_sure: whether `last_s` is as good as the times.

    Raises:
        InputFileError: a constant rate would repeat frames without end.
    """
    declared = declared if declared is not None and MIN_FPS <= declared <= MAX_FPS else None
    times = sorted(set(times))
    if len(times) < 2:
        rate_s = 0.0 if declared is None else 1 / declared
        return Timing(declared, num_frames=len(times) or None, duration_s=(last_s or rate_s or None) if times else None)
    marks = [*times, times[-1] + last_s] if is_end_sure else times
    period = (marks[-1] - marks[0]) / (len(marks) - 1)
    places = [time - index * period for index, time in enumerate(marks)]
    allowed = max(period / 2, tick_s)
    if max(places) - min(places) <= allowed * (1 + 1e-9):
        duration = times[-1] - times[0] + (last_s or period)
        rate = _constant_rate(period, len(marks), allowed, declared)
        return Timing(rate, last_s=period, num_frames=len(times), duration_s=duration)
    distances = [after - before for before, after in itertools.pairwise(times)]
    fps = min(max(_usual(1 / statistics.median_low(distances)), MIN_FPS), MAX_FPS)
    last_s = last_s or 1 / fps
    count = _place(times[-1] + last_s - times[0], fps)
    stays = sorted({*distances, last_s})
    if count - len(times) > _MOST_REPEATED:
        raise InputFileError(
            f"One of its frames stays for {stays[-1]:.3g} s: at {fps:.5g} frames per second, {len(times)} frames would "
            f"become {count}. Cut such pauses out, or save it anew at a constant rate."
        )
    note = (
        f"Its frames stay for {stays[0]:.3g} to {stays[-1]:.3g} s; by these times it is read at {fps:.5g} frames per "
        f"second: {len(times)} frames become {count}."
    )
    duration = times[-1] - times[0] + last_s
    return Timing(fps, is_even=False, last_s=last_s, note=note, num_frames=len(times), duration_s=duration)


def spread(frames: Iterable[LazyFrame], timing: Timing) -> Iterator[LazyFrame]:
    """The frames of a video of constant rate: each as often as its time asks for."""
    for frame, count in repeats(frames, timing):
        yield from itertools.repeat(frame, count)


def repeats(frames: Iterable[LazyFrame], timing: Timing) -> Iterator[tuple[LazyFrame, int]]:
    """Each frame with how often it is there at a constant rate; not at all where that is 0."""
    fps = timing.fps
    if timing.is_even or fps is None:
        yield from ((frame, 1) for frame in frames)
        return
    origin: float | None = None
    shown = 0
    waiting: LazyFrame | None = None
    for frame in frames:
        origin = frame.start_s if origin is None else origin
        if waiting is not None:
            count = max(_place(frame.start_s - origin, fps) - shown, 0)
            yield waiting, count
            shown += count
        waiting = frame
        if frame.end_s is not None:  # one that may no longer be there when the next one is
            count = max(_place(frame.end_s - origin, fps) - shown, 0)
            yield frame, count
            shown += count
            waiting = None
    if waiting is not None and origin is not None:
        yield waiting, max(1, _place(waiting.start_s + timing.last_s - origin, fps) - shown)


def _constant_rate(period: float, count: int, allowed: float, declared: float | None) -> float:
    """What the file says, where that agrees with the times it has; it is exact, and they are rounded."""
    nearest = min(_USUAL_RATES, key=lambda usual: abs(1 / usual - period))
    # Two packets may be the two fields of one frame.
    said = () if declared is None else ((declared, declared), (2 * declared, declared))
    for of_packets, of_frames in (*said, (nearest, nearest)):
        if abs(1 / of_packets - period) * (count - 1) <= min(allowed, _NEAR * period * count):
            return of_frames
    return 1 / period


def _usual(fps: float) -> float:
    nearest = min(_USUAL_RATES, key=lambda usual: abs(usual - fps))
    return nearest if abs(nearest / fps - 1) <= _NEAR else fps


def _place(seconds: float, fps: float) -> int:
    return math.floor(seconds * fps + 0.5)
