"""What a call of EasyAnimate's pipeline is to make, checked before anything is computed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from muybridge.checkpoints.easyanimate import USUAL_SIZE
from muybridge.conditioning import Picture, PinnedVideo, nothing_pinned, pin_keyframes, pin_video
from muybridge.errors import ConfigError, ShapeError
from muybridge.pipelines.base import require
from muybridge.pipelines.known_latents import KnownLatents, collect_known
from muybridge.pipelines.source_video import SourceVideo, Usual
from muybridge.types import LatentShape
from muybridge.vae import AutoencoderKLMagvit
from muybridge.video import Video

Profile = Literal["reference", "clean"]
PROFILES = ("reference", "clean")
FPS = 24.0


@dataclass(frozen=True)
class Task:
    """What one call makes, its conditions checked."""

    num_frames: int
    height: int
    width: int
    pinned: PinnedVideo
    strength: float
    profile: Profile
    clip_apply_ratio: float
    known: KnownLatents | None = None
    motion_condition: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Conditions:
    """What a call is given besides text; the arguments of the same names."""

    keyframes: Mapping[int, Picture] | None
    known_latents: Mapping[int, Tensor] | None
    init_video: SourceVideo | None
    mask: np.ndarray | None
    strength: float | None

    def check(self, takes_pictures: bool) -> None:
        """Raises ConfigError for conditions that exclude each other, or that the model has no channels for."""
        keyframes, video, strength = self.keyframes, self.init_video, self.strength
        require(
            {
                "Give keyframes or init_video, not both.": keyframes is None or video is None,
                "Give known_latents or init_video, not both.": self.known_latents is None or video is None,
                "A mask marks parts of init_video; give that too.": self.mask is None or video is not None,
                "strength says how far init_video may change; give that too.": strength is None or video is not None,
                f"strength must be above 0 and at most 1; given {strength}.": strength is None or 0 < strength <= 1,
                "This model has 4 channels and takes no pictures: image to video needs one with 12.": (
                    keyframes is None or takes_pictures
                ),
            }
        )

    def pin(self, num_frames: int, height: int, width: int, known_frames: int) -> PinnedVideo:
        """Keyframes or source video as pinned pixels; known latents are not among them.

        Raises:
            MuybridgeError: as `pin_keyframes` and `pin_video`.
        """
        if self.keyframes is not None:
            return pin_keyframes(self.keyframes, num_frames, height, width, known_frames)
        if self.init_video is not None:
            frames = self.init_video.frames if isinstance(self.init_video, Video) else self.init_video
            return pin_video(frames, self.mask, num_frames, height, width)
        return nothing_pinned(num_frames, height, width)

    @property
    def strength_or_default(self) -> float:
        """1 starts from noise alone; a source video without a mask is changed less."""
        if self.strength is not None:
            return self.strength
        return 0.7 if self.init_video is not None and self.mask is None else 1.0


def usual_of(vae: AutoencoderKLMagvit, num_frames: int, size: Sequence[int] | None, size_multiple: int) -> Usual:
    """What a model makes by default: `num_frames` of `size` (height, width; None if not known)."""
    rows, columns = size or USUAL_SIZE

    def largest(most: int) -> int:
        over = most % vae.frame_multiple if vae.shape.frames_per_chunk else (most - 1) % vae.frame_multiple
        return most - over if most > over else vae.frame_multiple

    def more(there: int) -> str:
        if (most := largest(there)) > num_frames:
            return f"For more, as memory allows, give num_frames={most} (--frames {most} --segment {most})."
        return f"This model makes {vae.frame_multiple} frames at once, and multiples."

    return Usual(num_frames, (rows, columns), FPS, size_multiple, largest, True, more)


def check_size(height: int, width: int, default: Sequence[int] | None, size_multiple: int) -> None:
    """Whether a model makes videos of this size; warns where it is known to be made for another one.

    Raises:
        ShapeError: no positive multiples of `size_multiple`; names the nearest.
    """
    if any(side < size_multiple or side % size_multiple for side in (height, width)):
        nearest = (max(size_multiple, round(side / size_multiple) * size_multiple) for side in (width, height))
        raise ShapeError(
            f"Width and height must be positive multiples of {size_multiple}; given {width}x{height}. "
            f"The nearest is {'x'.join(map(str, nearest))}."
        )
    if default is not None and (height, width) != tuple(default):
        rows, columns = default
        warnings.warn(
            f"This model is made for {columns}x{rows} pixels (width x height); given {width}x{height}. Other sizes can "
            "look worse, or grey; its own is the surest.",
            stacklevel=3,
        )


def pin_known(
    vae: AutoencoderKLMagvit, given: Mapping[int, Tensor], pinned: PinnedVideo, shape: LatentShape
) -> tuple[PinnedVideo, KnownLatents]:
    """Mark the frames of known latents as known.

    Raises:
        ConfigError: a frame that is pinned already, or nothing left to be made.
        MuybridgeError: as `collect_known`.
    """
    known = collect_known(vae, given, shape)
    frames = known.frames(pinned.unknown.shape[0])
    if not pinned.unknown[frames].all():
        twice = int(np.flatnonzero(frames & ~pinned.unknown.any((1, 2)))[0])
        raise ConfigError(f"Frame {twice} is given by a keyframe and by known_latents. Leave one of them out.")
    unknown = pinned.unknown & ~frames[:, None, None]
    if not unknown.any():
        raise ConfigError(f"All {len(frames)} frames are given; there is nothing to make. Give fewer known_latents.")
    return replace(pinned, unknown=unknown), known
