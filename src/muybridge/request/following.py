"""Videos that another one is made from or shown: its length, size and rate follow theirs where a call does not say."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from muybridge.errors import ConfigError
from muybridge.request.sizes import MAX_STRETCH, size_like, stretch_of
from muybridge.types import VideoShape
from muybridge.video import Video
from muybridge.video.checks import check_frames


@dataclass(frozen=True)
class Followed:
    """What is to be kept of a video that another one follows frame by frame.

    Attributes:
        name: in messages.
        num_frames: it has.
        size: height and width; None where its pictures are not opened yet.
        fps: frames per second; None where it does not say.
    """

    name: str
    num_frames: int
    size: tuple[int, int] | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Usual:
    """What a model makes where neither a call nor a source says anything.

    Attributes:
        num_frames: frames.
        size: height and width; None where the model does not say.
        fps: frames per second.
        multiple: of which height and width are.
        largest: from a number of frames to the largest up to it that the model can make.
        is_bounded: whether more than `num_frames` have to be asked for.
        more: how to, in words, from the number of frames there are.
    """

    num_frames: int
    size: tuple[int, int] | None
    fps: float
    multiple: int
    largest: Callable[[int], int]
    is_bounded: bool
    more: Callable[[int], str]


def follow(
    asked: tuple[int | None, int | None, int | None], fps: float | None, sources: Sequence[Followed], usual: Usual
) -> tuple[VideoShape, float]:
    """Length, size and rate of a video; warns of what is lost of its sources where that was not asked for.

    Args:
        asked: frames, height and width, None where they were not named.
        fps: likewise.
        sources: that it follows.
        usual: of the model.

    Raises:
        ConfigError: the model does not say at which size it was made, and the call neither.
    """
    num_frames, height, width = asked
    count = _num_frames(sources, usual) if num_frames is None else num_frames
    rows, columns = _size(height, width, sources, usual)
    return VideoShape(count, rows, columns), _rate(sources, usual) if fps is None else fps


def followed_video(name: str, frames: object, may_be_pictures: bool = False) -> Followed:
    """What is to be kept of a video called `name` in messages: a `Video`, or `uint8 [f, h, w, 3]`.

    Args:
        name: as in "The source video".
        frames: the video.
        may_be_pictures: whether it may also be a sequence of pictures, which are opened later.

    Raises:
        ShapeError: an array of another shape or type.
        ConfigError: it is none of these.
    """
    if isinstance(frames, Video):
        return Followed(name, len(frames), (frames.height, frames.width), float(frames.fps))
    if isinstance(frames, np.ndarray):
        check_frames(frames, may_be_empty=True)
        return Followed(name, len(frames), frames.shape[1:3])
    if not may_be_pictures or not isinstance(frames, Sequence):
        raise ConfigError(
            f"{name} must be a Video or a numpy array uint8 [f, h, w, 3]; given {type(frames).__name__}. Read a file "
            "with muybridge.video.read_video."
        )
    return Followed(name, len(frames))


def _num_frames(sources: Sequence[Followed], usual: Usual) -> int:
    there = min((each.num_frames for each in sources), default=0)
    if there == 0:
        return usual.num_frames
    count = usual.largest(min(there, usual.num_frames) if usual.is_bounded else there)
    for each in sources:
        if each.num_frames > count:
            warnings.warn(
                f"{each.name} has {each.num_frames} frames, of which the first {count} are used. {usual.more(there)}",
                stacklevel=4,
            )
    return count


def _size(height: int | None, width: int | None, sources: Sequence[Followed], usual: Usual) -> tuple[int, int]:
    followed = next(((each.name, each.size) for each in sources if each.size is not None), None)
    if height is None or width is None:
        if usual.size is None:
            raise ConfigError("This model does not say at which size it was trained; give height and width.")
        if followed is None:
            return usual.size[0] if height is None else height, usual.size[1] if width is None else width
        height, width = size_like(followed[1], (height, width), usual.size, usual.multiple)
    if followed is not None and stretch_of(followed[1], (height, width)) > MAX_STRETCH:
        name, (rows, columns) = followed
        warnings.warn(
            f"{name} is {columns}x{rows} and the video {width}x{height}: it is stretched. Leave the size out to keep "
            "its shape as far as the model can.",
            stacklevel=4,
        )
    return height, width


def _rate(sources: Sequence[Followed], usual: Usual) -> float:
    rates = [(each.name, each.fps) for each in sources if each.fps is not None]
    if not rates:
        return usual.fps
    (first, fps), *others = rates
    for name, rate in others:
        if rate != fps:
            warnings.warn(
                f"{first} plays at {fps:.5g} frames per second and {name[0].lower()}{name[1:]} at {rate:.5g}. They are "
                f"taken frame by frame, and the result plays at {fps:.5g}: bring them to one rate first.",
                stacklevel=4,
            )
    return fps
