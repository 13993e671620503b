"""What is drawn for a step: noise levels and noise, on the CPU, so that every device draws the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.training.objective.settings import ObjectiveSettings


def draw_timesteps(settings: ObjectiveSettings, count: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """One timestep of 0 .. `num_timesteps` - 1 for each of `count` samples, int64."""
    if settings.timesteps == "logit-normal":
        u = torch.randn(count, generator=generator).sigmoid()
    else:
        shift = settings.shift
        u = torch.rand(count, generator=generator)
        u = shift * u / (1 + (shift - 1) * u)
    return (u * num_timesteps).long().clamp_(max=num_timesteps - 1)


def draw_noise(settings: ObjectiveSettings, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Noise for latents of a shape `[b, c, (f,) h, w]`, float32.

    Raises:
        ConfigError: noise is to be shared between the frames of latents that have none.
    """
    noise = torch.randn(shape, generator=generator)
    if settings.shared_noise:
        if len(shape) != 5:
            raise ConfigError("shared_noise is noise shared between frames, and pictures have none; leave it out.")
        noise = share_noise(noise, settings.shared_noise, preserving=settings.noise_sharing == "preserving")
    if settings.noise_offset:
        # One draw for all frames: one a frame would teach flicker.
        noise += settings.noise_offset * torch.randn(*shape[:2], *(1,) * (len(shape) - 2), generator=generator)
    return noise


def share_noise(noise: Tensor, share: float, preserving: bool = True) -> Tensor:
    """Independent noise `[b, c, f, h, w]`, with each frame made of `share` of the one before it and of its own.

    Preserving, frame i becomes r n[i-1] + sqrt(1 - r^2) n[i], of variance 1 (the progressive noise of Ge et al.,
    2023); otherwise r n[i-1] + (1 - r) n[i] as in EasyAnimate, whose variance falls, for r = 0.5 to a third.
    """
    own = math.sqrt(1 - share**2) if preserving else 1 - share
    frames = [noise[:, :, 0]]
    for index in range(1, noise.shape[2]):
        frames.append(share * frames[-1] + own * noise[:, :, index])
    return torch.stack(frames, dim=2)
