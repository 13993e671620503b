"""The ports: what a condition may tell a network, whatever the network is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from muybridge.conditioning.known import PlacedLatents
from muybridge.conditioning.pinned import PinnedVideo
from muybridge.conditioning.residuals import ActiveControl
from muybridge.conditioning.text import EncodedPrompts
from muybridge.errors import ConfigError
from muybridge.request import Capabilities, Inputs
from muybridge.request.condition import Condition
from muybridge.request.inputs import SourceVideo
from muybridge.types import LatentShape, SettingsView, VideoShape
from muybridge.vae.codec import Codec
from muybridge.video import Video

T = TypeVar("T")
AfterStep = Callable[[int, Tensor], Tensor]
"""(index of the step, latents after it `[b, c, f, h, w]`) -> latents to go on with."""


class Parts(Protocol):
    """What a condition may use of a pipeline."""

    @property
    def can(self) -> Capabilities:
        """What the model can do."""
        ...

    @property
    def vae(self) -> Any:
        """Of the model."""
        ...

    @property
    def codec(self) -> Codec:
        """Videos to latents and back."""
        ...

    @property
    def backbone(self) -> Any:
        """The denoising network."""
        ...

    @property
    def working_device(self) -> torch.device:
        """Where networks run."""
        ...

    def network_for(self, role: str) -> Any:
        """A network beside the backbone by what it is for, such as a SparseCtrl for "keyframes"; None without one."""
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """What one call makes, as conditions see it.

    Attributes:
        shape: of a video.
        latents: of its latents.
        timesteps: noise levels of the steps, on the CPU.
        count: videos of the batch.
        guided: whether there is guidance.
        inputs: files of the request, opened.
        conditions: all of the request.
        frame_positions: from the frames that a motion module was trained on to places in time `[f]`; None for 0, 1, 2
            and so on.
        known_frames: for how many frames a picture at either end is held, by models that take pictures as channels.
        fitted: (height, width) of the picture or source video that the size of the video was fitted to, where it was:
            sizes come in steps, so that its aspect ratio is met only about.
    """

    shape: VideoShape
    latents: LatentShape
    timesteps: Tensor
    count: int
    guided: bool
    inputs: Inputs
    conditions: Sequence[Condition]
    frame_positions: Callable[[int], Tensor | None]
    known_frames: int = 1
    fitted: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """What conditions tell the networks; what there is of several adds up.

    Attributes:
        pinned: pixels that are given, and those to be made.
        starts_from: whether denoising begins at the frames of `pinned` instead of at noise alone.
        known: latents that the video has exactly.
        text: text states that were made elsewhere.
        noise: to start from instead of drawn noise, `[b, c, f, h, w]` of unit variance.
        positive: further conditions of the network by name, each `[b, ...]` or `[1, ...]`.
        negative: of the same, where guidance has others; those it does not name are as in `positive`.
        settings: further arguments of the network, the same for all videos.
        frame_axes: of each condition with a part for every latent frame, the axis of its frames.
        controls: networks that run beside it.
        after_step: changes latents after each step.
    """

    pinned: PinnedVideo | None = None
    starts_from: bool = False
    known: PlacedLatents | None = None
    text: EncodedPrompts | None = None
    noise: Tensor | None = None
    positive: Mapping[str, Tensor] = field(default_factory=dict)
    negative: Mapping[str, Tensor] = field(default_factory=dict)
    settings: SettingsView = field(default_factory=dict)
    frame_axes: Mapping[str, int] = field(default_factory=dict)
    controls: tuple[ActiveControl, ...] = ()
    after_step: AfterStep | None = None


def joined(prepared: Iterable[Prepared]) -> Prepared:
    """All in one.

    Raises:
        ConfigError: two conditions give the same thing.
    """
    found = list(prepared)
    return Prepared(
        pinned=_only("pinned", [each.pinned for each in found]),
        starts_from=any(each.starts_from for each in found),
        known=_only("known", [each.known for each in found]),
        text=_only("text", [each.text for each in found]),
        noise=_only("noise", [each.noise for each in found]),
        positive=_merged([each.positive for each in found]),
        negative=_merged([each.negative for each in found]),
        settings=_merged([each.settings for each in found]),
        frame_axes=_merged([each.frame_axes for each in found]),
        controls=tuple(control for each in found for control in each.controls),
        after_step=_in_turn([each.after_step for each in found if each.after_step is not None]),
    )


def _only(name: str, found: Sequence[T | None]) -> T | None:
    given = [each for each in found if each is not None]
    if len(given) > 1:
        raise ConfigError(f"Two conditions of this request both decide over {name}; leave one of them out.")
    return given[0] if given else None


def _merged(found: Sequence[Mapping[str, T]]) -> dict[str, T]:
    merged: dict[str, T] = {}
    for each in found:
        if twice := merged.keys() & each.keys():
            raise ConfigError(f"Two conditions of this request both give {min(twice)}; leave one of them out.")
        merged |= each
    return merged


def _in_turn(changes: Sequence[AfterStep]) -> AfterStep | None:
    if not changes:
        return None

    def change(index: int, latents: Tensor) -> Tensor:
        for each in changes:
            latents = each(index, latents)
        return latents

    return change


def source_frames(frames: SourceVideo) -> np.ndarray:
    """`uint8 [f, h, w, 3]` of a video or an array."""
    return frames.frames if isinstance(frames, Video) else frames
