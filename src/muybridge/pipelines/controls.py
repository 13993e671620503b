"""Networks beside the U-Net that tell it what a frame looks like, and when they do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.conditioning import Picture, open_picture
from muybridge.conditioning.image import resized
from muybridge.errors import ConfigError, ShapeError
from muybridge.video import Video


@dataclass(frozen=True, eq=False)
class DenseControl:
    """A picture of every frame (edges, depth, a pose) that a ControlNet makes the video follow.

    Attributes:
        model: the ControlNet, made for the same image model.
        frames: a video, or a picture for each frame (`uint8 [f, h, w, 3]` too); stretched to the size of the video.
        strength: how much of what it says is added.
        start: from which share of the steps on, 0 to 1.
        end: until which share of the steps.
    """

    model: ControlNetModel
    frames: Video | Sequence[Picture] | np.ndarray
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


def place_controls(controls: Sequence[DenseControl], unet: UNet3DConditionModel, device: torch.device) -> None:
    """Move ControlNets, which are no parts of a pipeline, to where it runs.

    Raises:
        ConfigError: one that is for another image model.
    """
    for control in controls:
        for name in ("block_out_channels", "cross_attention_dim", "layers_per_block", "in_channels"):
            has, needed = (_plain(network.config[name]) for network in (control.model, unet))
            if has != needed:
                raise ConfigError(
                    f"This ControlNet is for another image model: its {name} is {has}, and the U-Net's is {needed}. "
                    "Use one for the family of the model."
                )
        nn.Module.to(control.model, device)


def _plain(setting: Any) -> Any:
    """A list for what a file has as one, and what made the network as a tuple."""
    return list(setting) if isinstance(setting, Sequence) else setting


@dataclass(frozen=True)
class Influence:
    """How strongly a network counts, and between which noise levels.

    Attributes:
        strength: factor of its residuals.
        highest: noise level (timestep) of the first step in which it counts, infinite if from the beginning.
        lowest: of the last, minus infinity if to the end.
    """

    strength: float
    highest: float
    lowest: float

    @classmethod
    def during(cls, strength: float, start: float, end: float, timesteps: Tensor) -> Influence:
        """Between two shares of the steps, as diffusers counts them: whole steps inside `[start, end]`.

        Raises:
            ConfigError: shares outside 0 to 1, a strength that is no number, or no step between the shares.
        """
        if not 0 <= start < end <= 1:
            raise ConfigError(f"Influence must start before it ends, within 0 to 1; given {start} to {end}.")
        if not math.isfinite(strength):
            raise ConfigError(f"The strength of a control must be a finite number; given {strength}.")
        count = len(timesteps)
        inside = [i for i in range(count) if i / count >= start and (i + 1) / count <= end]
        if not inside:
            raise ConfigError(f"None of {count} steps lies whole between {start} and {end} of them; widen the range.")
        # Open where it has no bound: a shorter pass of FreeInit may begin and end at other levels than this one.
        highest = math.inf if inside[0] == 0 else float(timesteps[inside[0]])
        lowest = -math.inf if inside[-1] == count - 1 else float(timesteps[inside[-1]])
        return cls(strength, highest, lowest)

    def counts_at(self, level: float) -> bool:
        """Whether it counts in the step at a noise level (timestep)."""
        return self.strength != 0 and self.lowest <= level <= self.highest


@dataclass(frozen=True)
class Residuals:
    """What is added to the U-Net's skips and to its middle, each `[b, c, f, h, w]`."""

    down: list[Tensor]
    mid: Tensor

    def plus(self, other: Residuals | None) -> Residuals:
        """The sum of both."""
        if other is None:
            return self
        return Residuals([a + b for a, b in zip(self.down, other.down, strict=True)], self.mid + other.mid)

    def times(self, factor: float) -> Residuals:
        """All scaled by a number."""
        return self if factor == 1 else Residuals([each * factor for each in self.down], self.mid * factor)


def control_pixels(frames: Video | Sequence[Picture] | np.ndarray, num_frames: int, height: int, width: int) -> Tensor:
    """Pictures of a control as `float32 [1, 3, f, h, w]` in [0, 1].

    Raises:
        ShapeError: not a picture for each frame.
        InputFileError: a picture that cannot be read.
    """
    pictures: Any = frames.frames if isinstance(frames, Video) else frames
    if len(pictures) < num_frames:
        raise ShapeError(f"A dense control needs a picture for each of {num_frames} frames; given {len(pictures)}.")
    array = np.stack(
        [
            resized(open_picture(picture, f"Picture {index} of a control"), height, width)
            for index, picture in enumerate(pictures[:num_frames])
        ]
    )
    return torch.from_numpy(array).permute(3, 0, 1, 2)[None].float().div_(255)


def dense_residuals(
    model: ControlNetModel, latents: Tensor, timestep: Tensor, text: Tensor, pixels: Tensor
) -> Residuals:
    """Run a ControlNet on every frame by itself.

    Args:
        model: the ControlNet.
        latents: `[b, c, f, h, w]`.
        timestep: one for all.
        text: `[b, n, d]`, or `[b, f, n, d]` with a text for each frame.
        pixels: `[b, 3, f, H, W]` in [0, 1].
    """
    batch, num_frames = latents.shape[0], latents.shape[2]
    states = text.flatten(0, 1) if text.ndim == 4 else text.repeat_interleave(num_frames, dim=0)
    images, pictures = (x.transpose(1, 2).flatten(0, 1).to(model.dtype) for x in (latents, pixels))
    down, mid = model(images, timestep, states.to(model.dtype), pictures, return_dict=False)

    def unfolded(x: Tensor) -> Tensor:
        return x.unflatten(0, (batch, num_frames)).transpose(1, 2).to(latents.dtype)

    return Residuals([unfolded(each) for each in down], unfolded(mid))
