"""What EasyAnimate can be asked for, and what it makes where nobody says."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

from muybridge.errors import ConfigError
from muybridge.pipelines.easyanimate.folder import USUAL_SIZE
from muybridge.request import Capabilities, ModelChoice
from muybridge.request.following import Usual
from muybridge.vae import AutoencoderKLMagvit

Profile = Literal["reference", "clean"]
PROFILES = ("reference", "clean")
FPS = 24.0
_TAKES = frozenset({"prompt travel", "text masks", "windows"})


def check_profile(profile: str) -> None:
    """Raises ConfigError unless there is such a numeric profile."""
    if profile not in PROFILES:
        raise ConfigError(f"profile must be one of {PROFILES}; given {profile!r}.")


def capabilities(takes_pictures: bool) -> Capabilities:
    """Of a model with channels for pictures and masks, or without."""
    return Capabilities(
        model="An EasyAnimate model",
        instead="an AnimateDiff model",
        takes=_TAKES | ({"picture channels", "keyframes"} if takes_pictures else frozenset()),
        settings=frozenset({"profile", "clip_apply_ratio"}),
        refusals={"keyframes": "This model has 4 channels and takes no pictures: image to video needs one with 12."},
        source_strength=0.7,
        source_always=False,
        is_continued=True,
    )


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


def warn_of_size(height: int, width: int, default: Sequence[int] | None) -> None:
    """Warn of a size other than the (height, width) that a model is known to be made for."""
    if default is not None and (height, width) != tuple(default):
        rows, columns = default
        warnings.warn(
            f"This model is made for {columns}x{rows} pixels (width x height); given {width}x{height}. Other sizes can "
            "look worse, or grey; its own is the surest.",
            stacklevel=3,
        )


def check_choice(choice: ModelChoice) -> None:
    """Refuse what no EasyAnimate takes, before anything is read.

    Raises:
        ConfigError: a motion adapter, or a network beside the model.
    """
    if choice.motion_adapter is not None:
        raise ConfigError("An EasyAnimate model has its motion modules in itself; leave motion_adapter out.")
    if choice.networks:
        role, path = next(iter(choice.networks.items()))
        can = capabilities(takes_pictures=True)
        raise ConfigError(f"{can.model} has no network for {role}; leave {path} out, or use {can.instead}.")
