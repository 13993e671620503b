"""The ports: what a condition may tell a network, whatever the network is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from muybridge.conditioning.known import PlacedLatents
from muybridge.conditioning.pinned import PinnedVideo
from muybridge.conditioning.residuals import Control
from muybridge.conditioning.text import EncodedPrompts
from muybridge.errors import ConfigError
from muybridge.request import Capabilities, Inputs
from muybridge.types import LatentShape, SettingsDict, SettingsView, VideoShape
from muybridge.vae.codec import Codec

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
    """

    shape: VideoShape
    latents: LatentShape
    timesteps: Tensor
    count: int
    guided: bool
    inputs: Inputs
    conditions: Sequence[Any]
    frame_positions: Callable[[int], Tensor | None]
    known_frames: int = 1


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
    controls: tuple[Control, ...] = ()
    after_step: AfterStep | None = None


def joined(prepared: Iterable[Prepared]) -> Prepared:
    """All in one.

    Raises:
        ConfigError: two conditions give the same thing.
    """
    found = list(prepared)
    return Prepared(
        pinned=_only(found, "pinned"),
        starts_from=any(each.starts_from for each in found),
        known=_only(found, "known"),
        text=_only(found, "text"),
        noise=_only(found, "noise"),
        positive=_merged(found, "positive"),
        negative=_merged(found, "negative"),
        settings=_merged(found, "settings"),
        frame_axes=_merged(found, "frame_axes"),
        controls=tuple(control for each in found for control in each.controls),
        after_step=_in_turn([each.after_step for each in found if each.after_step is not None]),
    )


def _only(found: Sequence[Prepared], name: str) -> Any:
    given = [value for each in found if (value := getattr(each, name)) is not None]
    if len(given) > 1:
        raise ConfigError(f"Two conditions of this request both decide over {name}; leave one of them out.")
    return given[0] if given else None


def _merged(found: Sequence[Prepared], name: str) -> SettingsDict:
    merged: SettingsDict = {}
    for each in found:
        if twice := merged.keys() & getattr(each, name).keys():
            raise ConfigError(f"Two conditions of this request both give {min(twice)}; leave one of them out.")
        merged |= getattr(each, name)
    return merged


def _in_turn(changes: Sequence[AfterStep]) -> AfterStep | None:
    if not changes:
        return None

    def change(index: int, latents: Tensor) -> Tensor:
        for each in changes:
            latents = each(index, latents)
        return latents

    return change


def source_frames(frames: Any) -> np.ndarray:
    """`uint8 [f, h, w, 3]` of a video or an array."""
    return getattr(frames, "frames", frames)
