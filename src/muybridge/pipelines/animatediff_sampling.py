"""How a video longer than the motion modules know is sampled: in windows, from related noise, several times over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import ConfigError
from muybridge.motion import cap_positions, stretch_positions
from muybridge.pipelines.animatediff_conditions import Control, ControlledUNet, control_names
from muybridge.pipelines.animatediff_text import TextConditions
from muybridge.pipelines.base import CommonSettings, require
from muybridge.pipelines.image_prompt import ImageConditions
from muybridge.pipelines.motion_condition import one_a_video
from muybridge.sampling import (
    ContextWindows,
    FreeInit,
    Guidance,
    WindowSettings,
    draw_noise,
    free_noise,
    plan_windows,
)
from muybridge.types import LatentShape

Positions = Literal["plain", "stretched", "capped"]


@dataclass(frozen=True)
class SamplingChoices:
    """The arguments of the same names, checked together."""

    windows: WindowSettings | None
    free_noise: bool
    free_init: FreeInit | None
    positions: Positions

    def check(self, num_frames: int, has_source: bool, has_latents: bool, has_motion: bool) -> None:
        """Whether they go together, with each other and with the rest of a call.

        Raises:
            ConfigError: they do not, or one would have no effect.
            ShapeError: a window larger than the video.
        """
        plain = self.positions == "plain"
        require(
            {
                f"positions must be one of {get_args(Positions)}; given {self.positions!r}.": (
                    self.positions in get_args(Positions)
                ),
                "free_noise repeats the noise of one window; give windows too.": not self.free_noise
                or self.windows is not None,
                "free_noise has no effect on latents that are given; leave one of them out.": not self.free_noise
                or not has_latents,
                "free_init starts from noise alone; leave init_video out.": self.free_init is None or not has_source,
                "Windows start at position 0 each; leave positions or windows out.": plain or self.windows is None,
                "Without motion modules, positions in time have no effect; leave them out.": plain or has_motion,
            }
        )
        if self.windows is not None:
            plan_windows(num_frames, self.windows)

    def noise(self, generators: Sequence[torch.Generator], shape: LatentShape) -> Tensor:
        """Noise of unit variance to start from."""
        if not self.free_noise or self.windows is None:
            return draw_noise(generators, shape)
        return free_noise(generators, shape, self.windows.size, self.windows.size - self.windows.overlap)

    def frame_positions(self, num_frames: int, trained_frames: int) -> Tensor | None:
        """Positions `[f]` in time, or None for 0, 1, 2 and so on."""
        if self.positions == "plain":
            return None
        change = stretch_positions if self.positions == "stretched" else cap_positions
        return change(torch.arange(num_frames), trained_frames)

    def windowed(self, network: ControlledUNet, conditions: dict[str, Tensor]) -> ControlledUNet | ContextWindows:
        """The network, or windows over it; conditions that have a part for every frame are cut along."""
        if self.windows is None:
            return network
        axes = {name: 2 for name in conditions if name.startswith("control_")}
        if conditions["encoder_hidden_states"].ndim == 4:
            axes["encoder_hidden_states"] = 1
            if "text_embeds" in conditions and conditions["text_embeds"].ndim == 3:
                axes["text_embeds"] = 1
        if "motion_strengths" in conditions:
            axes["motion_strengths"] = 1
        return ContextWindows(network, self.windows, axes)

    def record(self) -> dict[str, Any]:
        """For the request of a video: what differs from the default."""
        found = {
            "windows": None if self.windows is None else dict(vars(self.windows)),
            "free_init": None if self.free_init is None else dict(vars(self.free_init)),
            "free_noise": self.free_noise or None,
            "positions": None if self.positions == "plain" else self.positions,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, eq=False)
class TaskDenoiser:
    """The U-Net with all that it is told, for the denoising loop.

    Attributes:
        guidance: predicts.
        network: what guidance calls, by way of `windowed`.
        windowed: the same, or windows over it.
    """

    guidance: Guidance
    network: ControlledUNet
    windowed: ControlledUNet | ContextWindows

    def before_step(self, timesteps: Tensor) -> Callable[[int], None]:
        """What is to be called with the number of each step of `timesteps` before it."""

        def begin(index: int) -> None:
            self.network.begin_step(float(timesteps[index]))
            if isinstance(self.windowed, ContextWindows):
                self.windowed.begin_step(index)

        return begin


@dataclass(frozen=True, eq=False)
class Task:
    """What one call makes, its conditions checked and read.

    Attributes:
        shape: of the latents of a video.
        choices: how it is sampled.
        controls: networks beside the U-Net.
        source: frames to start from, `uint8 [f, h, w, 3]`, or None.
        strength_by_frame: of motion, `[1, f]`, or None where all frames have the same.
        motion_condition: `[b, d]` or `[1, d]`, or None.
    """

    shape: LatentShape
    choices: SamplingChoices
    controls: Sequence[Control]
    source: np.ndarray | None
    strength_by_frame: Tensor | None
    motion_condition: Tensor | None = None

    def denoiser(
        self,
        unet: UNet3DConditionModel,
        text: TextConditions,
        image: ImageConditions,
        common: CommonSettings,
        device: torch.device,
    ) -> TaskDenoiser:
        """The U-Net, told all this."""
        settings = {**self._unet_settings(unet, common.motion_strength), **image.settings}
        network = ControlledUNet(unet, settings, self.controls)
        shown = self._conditions(text.count, device, unet.dtype)
        positive = {**text.positive, **shown, **image.positive}
        negative = None if text.negative is None else {**text.negative, **shown, **image.negative}
        windowed = self.choices.windowed(network, positive)
        guidance = Guidance(windowed, positive, negative, common.guidance_scale, common.batched_guidance)
        return TaskDenoiser(guidance, network, windowed)

    def _conditions(self, count: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """Conditions of `ControlledUNet` besides text, for `count` videos."""
        shown = {
            name: each.condition.to(device, dtype).expand(count, -1, -1, -1, -1)
            for name, each in zip(control_names(self.controls), self.controls, strict=True)
        }
        if self.strength_by_frame is not None:
            shown["motion_strengths"] = self.strength_by_frame.to(device).expand(count, -1)
        if (condition := self.motion_condition) is not None:
            shown["motion_condition"] = one_a_video(condition, count).to(device, dtype)
        return shown

    def _unet_settings(self, unet: UNet3DConditionModel, strength: float | Sequence[float]) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if self.strength_by_frame is None:
            settings["motion_strength"] = strength
        if (adapter := unet.motion_adapter) is not None and adapter.trained_frames is not None:
            frames = self.shape.num_latent_frames
            settings["frame_positions"] = self.choices.frame_positions(frames, adapter.trained_frames)
        return settings


def strengths_by_frame(strength: float | Sequence[float], num_frames: int) -> Tensor | None:
    """`[1, f]` of a strength for each frame; None of one for all.

    Raises:
        ConfigError: not one for each frame.
    """
    if not isinstance(strength, Sequence):
        return None
    if len(strength) != num_frames:
        raise ConfigError(f"motion_strength must be one number, or {num_frames}, one a frame; given {len(strength)}.")
    return torch.tensor(strength, dtype=torch.float32)[None]
