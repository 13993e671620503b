"""Which pieces a long video is made of. Numbers only: nothing here knows a network, a picture or a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from muybridge.errors import ConfigError, ShapeError

Policy = Literal["exact", "reference"]


@dataclass(frozen=True)
class Segment:
    """One piece of a long video, made by one run of a pipeline.

    Its first `num_known` frames show what the video already shows, and the others continue it.

    Attributes:
        index: of the segment, from 0.
        start: the frame of the video that its first frame falls on; below 0 where frames before the video are cut off.
        num_frames: how many to make, the known ones included.
        num_known: how many at its start are carried from the video so far; 0 for the first segment.
        add_start: of its frames, the first that the video does not have yet; its `num_known` in all but the first.
        add_stop: one past the last of its frames that goes into the video; those from there on are cut off.
        has_first_keyframe: whether the first keyframe of the video is its first frame.
        has_last_keyframe: whether the last keyframe of the video is its last frame.
    """

    index: int
    start: int
    num_frames: int
    num_known: int
    add_start: int
    add_stop: int
    has_first_keyframe: bool
    has_last_keyframe: bool

    @property
    def num_added(self) -> int:
        """By how many frames the video grows."""
        return self.add_stop - self.add_start

    @property
    def stop(self) -> int:
        """How many frames the video has with this segment."""
        return self.start + self.add_stop


def plan_segments(  # noqa: PLR0913, PLR0917  # all that a plan depends on
    num_frames: int | None,
    segment_frames: int = 72,
    overlap_frames: int = 4,
    frame_multiple: int = 8,
    known_multiple: int = 1,
    policy: Policy = "exact",
    has_first_keyframe: bool = False,
    has_last_keyframe: bool = False,
    held_frames: int = 0,
) -> Iterator[Segment]:
    """Cut a long video into segments, each of which continues the one before.

    All segments but the last have `segment_frames` frames, `overlap_frames` of them known. They differ in the last:

    - `exact`: the video gets exactly `num_frames`. The last segment is as short as `frame_multiple` allows and begins
      earlier than the others would, so that more of it is known; what `known_multiple` leaves over is cut from its
      end. A video of a single segment is cut at its end, or at its start where only the last frame is a keyframe.
      Where nothing would be made before the last keyframe, the segment before leaves some of its frames to the last.
    - `reference`: EasyAnimate's arithmetic. The last segment has what is left, rounded down to a multiple of
      `frame_multiple`, known frames included, so that the video may be up to `frame_multiple - 1` frames shorter than
      asked; a segment that would add no frame is left out. Source: EasyAnimate V3, long video of its
      user interface and predict scripts.

    Args:
        num_frames: length of the video; None plans without end.
        segment_frames: frames of a whole segment, a multiple of `frame_multiple`.
        overlap_frames: known frames of a whole segment, at least 1 and fewer than `segment_frames`.
        frame_multiple: the numbers of frames that the model makes are the multiples of this.
        known_multiple: the numbers of frames that may be known are the multiples of this; 1 where they are handed on as
            pictures, the pixel frames of one latent frame where they are handed on as latents. For `exact` only.
        policy: `exact` or `reference`.
        has_first_keyframe: whether the first frame of the video is given.
        has_last_keyframe: whether its last frame is given; needs a `num_frames`.
        held_frames: for how many frames the model holds a keyframe at either end; where one is, at least one more frame
            is made. 0 demands no room.

    Returns:
        An iterator that computes each segment when it is asked for.

    Raises:
        ShapeError: numbers of frames that cannot be, with the nearest that can; at once.
        ConfigError: a policy that is not known, or a setting that has no effect; at once.
    """
    rules = _Rules(segment_frames, overlap_frames, frame_multiple, known_multiple, policy)
    rules.check()
    if held_frames < 0:
        raise ShapeError(f"held_frames must not be negative; given {held_frames}. Take those of the model.")
    ends = _Ends(has_first_keyframe, has_last_keyframe, held_frames)
    if num_frames is None:
        if has_last_keyframe:
            raise ConfigError("A video without end has no last frame. Give num_frames, or no last keyframe.")
        return (rules.whole(index, ends) for index in itertools.count())
    if rules.last(num_frames, ends) is None:
        raise ShapeError(_no_plan(rules, num_frames, ends))
    return _finite(rules, num_frames, ends)


@dataclass(frozen=True)
class _Ends:
    first: bool
    last: bool
    held: int

    @property
    def first_held(self) -> int:
        """Frames that the first keyframe takes."""
        return self.held if self.first else 0

    @property
    def last_held(self) -> int:
        """Frames that the last keyframe takes."""
        return self.held if self.last else 0


@dataclass(frozen=True)
class _Rules:
    segment: int
    overlap: int
    multiple: int
    known_multiple: int
    policy: Policy

    @property
    def stride(self) -> int:
        return self.segment - self.overlap

    def check(self) -> None:
        if self.policy not in get_args(Policy):
            raise ConfigError(f"policy must be one of {', '.join(get_args(Policy))}; given {self.policy!r}.")
        if self.multiple < 1 or self.known_multiple < 1:
            raise ShapeError(
                f"frame_multiple and known_multiple must be at least 1; given {self.multiple} and "
                f"{self.known_multiple}. Take those of the model."
            )
        if self.segment < 1 or self.segment % self.multiple:
            raise ShapeError(
                f"segment_frames must be a positive multiple of {self.multiple}; given {self.segment}. "
                f"The nearest is {_nearest(self.segment, self.multiple)}."
            )
        unit = self.known_multiple
        most = (self.segment - 1) // unit * unit
        if most < 1:
            raise ShapeError(
                f"segment_frames must be more than {unit}, the fewest frames that segments can share here; given "
                f"{self.segment}. The nearest is {unit // self.multiple * self.multiple + self.multiple}."
            )
        nearest = min(_nearest(self.overlap, unit), most)
        if not 1 <= self.overlap < self.segment:
            raise ShapeError(
                f"overlap_frames must be {unit} to {most}, fewer than the {self.segment} frames of a segment; given "
                f"{self.overlap}. The nearest is {nearest}."
            )
        if self.overlap % unit:
            raise ShapeError(
                f"overlap_frames must be a multiple of {unit}; given {self.overlap}. The nearest is {nearest}."
            )
        if self.policy == "reference" and self.known_multiple > 1:
            raise ConfigError("known_multiple has no effect with the policy 'reference'. Leave it out or take 'exact'.")

    def whole(self, index: int, ends: _Ends) -> Segment:
        """The segment `index` of a video that goes on after it."""
        known = self.overlap if index else 0
        return Segment(
            index=index,
            start=index * self.stride,
            num_frames=self.segment,
            num_known=known,
            add_start=known,
            add_stop=self.segment,
            has_first_keyframe=ends.first and index == 0,
            has_last_keyframe=False,
        )

    def last(self, num_frames: int, ends: _Ends) -> Segment | None:
        """The segment that ends a video of `num_frames`, None where no plan does that and keeps its keyframes."""
        if num_frames < 1:
            return None
        # Before it there are as many whole segments as leave at least one frame to be made.
        index = max(0, -(-(num_frames - self.segment) // self.stride))
        if self.policy == "reference":
            return self._reference_last(index, num_frames, ends)
        return self._exact_last(index, num_frames, ends) if index else self._only(num_frames, ends)

    def _reference_last(self, index: int, num_frames: int, ends: _Ends) -> Segment | None:
        start, known = index * self.stride, self.overlap if index else 0
        frames = (num_frames - start) // self.multiple * self.multiple
        if frames > known + ends.last_held:
            return Segment(index, start, frames, known, known, frames, ends.first and index == 0, ends.last)
        # The original forgets the last keyframe here; nobody who gave one wants that.
        return None if index == 0 or ends.last else self.whole(index - 1, ends)

    def _exact_last(self, index: int, num_frames: int, ends: _Ends) -> Segment | None:
        whole = (index - 1) * self.stride + self.segment
        # One frame at least lies between what is known and the last keyframe.
        missing = ends.last_held + 1 - (num_frames - whole) if ends.last else 0
        cut = _round_up(max(0, missing), self.known_multiple)
        added = num_frames - whole + cut
        frames = _round_up(added + self.overlap, self.multiple)
        known = (frames - added) // self.known_multiple * self.known_multiple
        if frames > self.segment or known > self.segment - cut or (ends.last and known + added < frames):
            return None
        return Segment(index, num_frames - added - known, frames, known, known, known + added, False, ends.last)

    def _only(self, num_frames: int, ends: _Ends) -> Segment | None:
        frames = _round_up(num_frames, self.multiple)
        cut = frames - num_frames
        if (cut and ends.first and ends.last) or frames <= ends.first_held + ends.last_held:
            return None
        if not ends.last:
            return Segment(0, 0, frames, 0, 0, num_frames, ends.first, False)
        return Segment(0, -cut, frames, 0, cut, frames, ends.first, True)


def _finite(rules: _Rules, num_frames: int, ends: _Ends) -> Iterator[Segment]:
    last = rules.last(num_frames, ends)
    if last is None:
        return
    known_until = last.start + last.num_known
    for index in range(last.index):
        segment = rules.whole(index, ends)
        yield segment if index < last.index - 1 else replace(segment, add_stop=known_until - segment.start)
    yield last


def _no_plan(rules: _Rules, num_frames: int, ends: _Ends) -> str:
    # Some multiple of the frame multiple always works within this distance.
    reach = rules.segment + rules.multiple * rules.known_multiple
    near = [
        next((n for n in candidates if rules.last(n, ends) is not None), None)
        for candidates in (
            range(num_frames - 1, max(0, num_frames - reach), -1),
            range(max(1, num_frames + 1), max(1, num_frames) + reach),
        )
    ]
    kept = " and ends at a keyframe" if ends.last else ""
    return (
        f"No plan of segments of up to {rules.segment} frames, overlapping by {rules.overlap}, makes {num_frames} "
        f"frames{kept} under the policy {rules.policy!r}. The nearest num_frames: "
        f"{' or '.join(str(n) for n in near if n is not None)}."
    )


def _nearest(value: int, multiple: int) -> int:
    return max(multiple, round(value / multiple) * multiple)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
