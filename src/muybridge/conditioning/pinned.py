"""Which pixels of a video are given and which are to be made: keyframes, source videos and masks as one form."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from muybridge.errors import ConfigError, ShapeError
from muybridge.request.pictures import Picture, open_picture, resized


@dataclass(frozen=True, eq=False)
class PinnedVideo:
    """A video of which parts are given.

    Attributes:
        frames: `uint8 [f, h, w, 3]`; where `unknown` it only matters as a start for partial denoising.
        unknown: `bool [f, h, w]`, True where pixels are to be made.
        picture: the first keyframe, stretched to the size of the video, for an image encoder; or None.
    """

    frames: npt.NDArray[np.uint8]
    unknown: npt.NDArray[np.bool_]
    picture: Image.Image | None = None

    @property
    def all_unknown(self) -> bool:
        """Whether nothing is given."""
        return bool(self.unknown.all())


def nothing_pinned(num_frames: int, height: int, width: int) -> PinnedVideo:
    """A black video that is all to be made."""
    return PinnedVideo(np.zeros((num_frames, height, width, 3), np.uint8), np.ones((num_frames, height, width), bool))


def pin_keyframes(
    keyframes: Mapping[int, Picture], num_frames: int, height: int, width: int, known_frames: int = 3
) -> PinnedVideo:
    """Pin pictures to frames; they are stretched to the size of the video.

    A picture at the very first or last frame is held for `known_frames` frames, unless the frame next to it is pinned
    too, as in a continuation; any other pins its own frame alone. What is not pinned repeats the first keyframe.

    Args:
        keyframes: pictures by frame; negative indexes count from the end.
        num_frames: of the video.
        height: in pixels.
        width: in pixels.
        known_frames: 3 in the later code of EasyAnimate V3, 1 in its first.

    Raises:
        ConfigError: two pictures for one frame, one that is partly transparent, or nothing left to be made.
        ShapeError: an index outside the video, or a last keyframe without room behind the first.
        InputFileError: a picture that cannot be read.
    """
    pinned: dict[int, Image.Image] = {}
    for index, picture in keyframes.items():
        frame = index + num_frames if index < 0 else index
        if not 0 <= frame < num_frames:
            raise ShapeError(f"Keyframe {index} is outside the video, which has {num_frames} frames.")
        if frame in pinned:
            raise ConfigError(f"Frame {frame} has two keyframes; give one.")
        pinned[frame] = open_picture(picture, f"The picture of frame {index}")
    if not pinned:
        raise ConfigError("There are no keyframes in keyframes; leave it out, or give one, as in {0: picture}.")
    source = _source_of_known_frames(pinned, num_frames, known_frames)
    if len(source) == num_frames:
        raise ConfigError(f"All {num_frames} frames are given by keyframes; there is nothing to make.")
    pictures = {frame: resized(picture, height, width) for frame, picture in pinned.items()}
    result = nothing_pinned(num_frames, height, width)
    first = min(pinned)
    result.frames[:] = pictures[first]
    for frame, keyframe in source.items():
        result.frames[frame] = pictures[keyframe]
        result.unknown[frame] = False
    return PinnedVideo(result.frames, result.unknown, Image.fromarray(pictures[first]))


def _source_of_known_frames(pinned: Collection[int], num_frames: int, known_frames: int) -> dict[int, int]:
    """Which keyframe each known frame shows."""
    last = num_frames - 1
    held = {frame: [frame] for frame in sorted(pinned)}
    if 0 in pinned and 1 not in pinned:
        held[0] = list(range(min(known_frames, num_frames)))
    if last in pinned and last - 1 not in pinned and last > 0:
        held[last] = list(range(max(0, num_frames - known_frames), num_frames))
    source: dict[int, int] = {}
    for keyframe, frames in held.items():
        for frame in frames:
            if frame in source:
                raise ShapeError(
                    f"The keyframes {source[frame]} and {keyframe} leave no room between them in {num_frames} frames: "
                    f"each end is held for {known_frames}. Ask for more frames, or for known_frames=1."
                )
            source[frame] = keyframe
    return source


def pin_video(
    source: npt.NDArray[np.uint8], mask: npt.NDArray | None, num_frames: int, height: int, width: int
) -> PinnedVideo:
    """A source video of which the masked part is to be made anew; without a mask, all of it.

    Args:
        source: `uint8 [n, h', w', 3]`, at least `num_frames` frames, stretched to the size of the video.
        mask: `[h', w']` for all frames or `[n, h', w']`; more than half of its range (255, 1 or True) is to be made.
        num_frames: of the video; further frames of the source are not used.
        height: in pixels.
        width: in pixels.

    Raises:
        ShapeError: too few frames, or a mask of another size.
        ConfigError: a mask that leaves nothing to be made.
    """
    if len(source) < num_frames:
        raise ShapeError(f"The source video has {len(source)} frames; {num_frames} were asked for. Ask for fewer.")
    frames = np.stack([resized(Image.fromarray(frame), height, width) for frame in source[:num_frames]])
    if mask is None:
        return PinnedVideo(frames, np.ones(frames.shape[:3], bool))
    mask = np.asarray(mask)
    if mask.ndim == 2:
        mask = np.broadcast_to(mask, (len(source), *mask.shape))
    if mask.shape != source.shape[:3]:
        raise ShapeError(
            f"The mask must be {list(source.shape[:3])} or {list(source.shape[1:3])} like the source video; given "
            f"{list(mask.shape)}."
        )
    on = mask if mask.dtype == bool else mask > (0.5 if mask.max(initial=0) <= 1 else 127.5)
    small = [Image.fromarray(frame.astype(np.uint8) * 255) for frame in on[:num_frames]]
    unknown = np.stack([np.asarray(each.resize((width, height), Image.Resampling.NEAREST)) for each in small]) > 127
    if not unknown.any():
        raise ConfigError("The mask is black everywhere: nothing is to be made. White marks what is made anew.")
    return PinnedVideo(frames, unknown)
