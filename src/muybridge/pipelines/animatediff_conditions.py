"""What an AnimateDiff video must obey besides its text, from the arguments of a call to what a step needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.conditioning import pin_video
from muybridge.errors import ConfigError
from muybridge.pipelines.controls import DenseControl, Influence, Residuals, control_pixels, dense_residuals
from muybridge.types import VideoShape
from muybridge.vae import encode_images
from muybridge.video import Video

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

ResidualsOf = Callable[[Tensor, Tensor, Tensor, Tensor], Residuals]
"""(latents, timestep, text states, the condition `[b, c, f, h, w]`) -> what is added to the U-Net."""


@dataclass(frozen=True, eq=False)
class Control:
    """A network beside the U-Net, ready to run.

    Attributes:
        condition: what it is shown, `[1, c, f, h, w]`, the same for all videos of a batch.
        influence: when, and how strongly.
        residuals: runs it.
    """

    condition: Tensor
    influence: Influence
    residuals: ResidualsOf


@dataclass(frozen=True, eq=False)
class ControlledUNet:
    """The U-Net with the networks beside it: what guidance calls in every step.

    Conditions named `control_0`, `control_1` and so on belong to `controls`; others go to the U-Net.

    Attributes:
        unet: the U-Net; computes in its own precision, while latents stay float32 between the steps.
        settings: further arguments of it.
        controls: those networks.
    """

    unet: UNet3DConditionModel
    settings: Mapping[str, Any] = field(default_factory=dict)
    controls: Sequence[Control] = ()

    def __call__(self, latents: Tensor, timestep: Tensor, /, **conditions: Tensor) -> Tensor:
        """The prediction for `latents [b, c, f, h, w]`."""
        latents = latents.to(self.unet.dtype)
        total: Residuals | None = None
        for name, control in zip(control_names(self.controls), self.controls, strict=True):
            shown, text = conditions.pop(name), conditions["encoder_hidden_states"]
            residuals = control.residuals(latents, timestep, text, shown)
            total = residuals.times(control.influence.at(timestep)).plus(total)
        added: dict[str, Any] = {}
        if total is not None:
            added = {"down_block_additional_residuals": total.down, "mid_block_additional_residual": total.mid}
        return self.unet(latents, timestep, **conditions, **added, **self.settings).sample.float()


def control_names(controls: Sequence[Control]) -> list[str]:
    """Names of the conditions of `controls`."""
    return [f"control_{index}" for index in range(len(controls))]


def dense_controls(controls: Sequence[DenseControl], shape: VideoShape, timesteps: Tensor) -> list[Control]:
    """ControlNets, ready to run in the steps `timesteps`.

    Raises:
        ConfigError: strength or influence out of range.
        ShapeError: not a picture for each frame.
        InputFileError: a picture that cannot be read.
    """
    return [
        Control(
            control_pixels(each.frames, shape.num_frames, shape.height, shape.width),
            Influence.during(each.strength, each.start, each.end, timesteps),
            _dense(each),
        )
        for each in controls
    ]


def _dense(control: DenseControl) -> ResidualsOf:
    def residuals(latents: Tensor, timestep: Tensor, text: Tensor, pixels: Tensor) -> Residuals:
        return dense_residuals(control.model, latents, timestep, text, pixels)

    return residuals


def check_source(init_video: object, strength: float | None) -> float:
    """The share of the noise levels to run through.

    Raises:
        ConfigError: out of range, or without a video to start from.
    """
    if strength is not None and init_video is None:
        raise ConfigError("strength says how far init_video may change; give that too.")
    if strength is not None and not 0 < strength <= 1:
        raise ConfigError(f"strength must be above 0 and at most 1; given {strength}.")
    return 1.0 if init_video is None else 0.8 if strength is None else strength


def source_frames(init_video: Video | np.ndarray, shape: VideoShape) -> np.ndarray:
    """Frames to start from, `uint8 [f, h, w, 3]`, stretched to the size of the video.

    Raises:
        ShapeError: fewer frames than asked for.
    """
    frames = init_video.frames if isinstance(init_video, Video) else init_video
    return pin_video(frames, None, shape.num_frames, shape.height, shape.width).frames


def encode_frames(vae: AutoencoderKL, frames: np.ndarray, device: torch.device, chunk: int = 8) -> Tensor:
    """Mean latents of frames `uint8 [f, h, w, 3]`: `float32 [1, c, f, h, w]`, scaled; `chunk` frames at once."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    with torch.no_grad():
        pieces = [encode_images(vae, each.to(device).float() / 127.5 - 1) for each in pixels.split(chunk)]
    return torch.cat(pieces).transpose(0, 1)[None]
