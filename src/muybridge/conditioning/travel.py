"""Prompt travel: one text at one frame, another at a later one, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from muybridge.conditioning.text import EncodedPrompts
from muybridge.errors import ConfigError, ShapeError


def check_travel(prompts: Mapping[int, str], num_frames: int) -> None:
    """Whether prompts by frame can be travelled through.

    Raises:
        ConfigError: none, or frames that do not rise.
        ShapeError: a frame outside the video.
    """
    frames = list(prompts)
    if not frames:
        raise ConfigError("The prompts by frame are empty; give at least one, as in {0: 'a red circle'}.")
    if outside := [frame for frame in frames if not 0 <= frame < num_frames]:
        raise ShapeError(
            f"The prompt at frame {outside[0]} is outside the video, which has frames 0 to {num_frames - 1}."
        )
    if frames != sorted(frames):
        raise ConfigError(f"Prompts by frame must be in the order of their frames; given {frames}.")


def travel_weights(frames: list[int], num_frames: int) -> Tensor:
    """How much each prompt counts at each frame, `[num_frames, len(frames)]`; rows sum to 1.

    Linear between neighbours; before the first and after the last that one alone.

    Args:
        frames: of the prompts, rising.
        num_frames: of the video.
    """
    positions = torch.arange(num_frames, dtype=torch.float32)
    weights = torch.zeros(num_frames, len(frames))
    weights[positions <= frames[0], 0] = 1.0
    weights[positions >= frames[-1], -1] = 1.0
    for index, (start, end) in enumerate(pairwise(frames)):
        inside = (positions >= start) & (positions < end)
        share = (positions[inside] - start) / (end - start)
        weights[inside, index] = 1 - share
        weights[inside, index + 1] = share
    return weights


def travelled(states: Tensor, frames: list[int], num_frames: int, num_latent_frames: int | None = None) -> Tensor:
    """Of each latent frame what lies between the prompts': `[k, ...]` to `[1, f, ...]`.

    Args:
        states: of the prompts.
        frames: of the prompts, rising.
        num_frames: of the video.
        num_latent_frames: by default as many; fewer take the mean of the frames that each stands for.
    """
    weights = travel_weights(frames, num_frames)
    if num_latent_frames is not None and num_latent_frames != num_frames:
        owner = torch.arange(num_frames) * num_latent_frames // num_frames
        sums = torch.zeros(num_latent_frames, len(frames)).index_add_(0, owner, weights)
        weights = sums / torch.bincount(owner, minlength=num_latent_frames)[:, None]
    return torch.einsum("fk,k...->f...", weights.to(states), states)[None]


def travelled_prompts(
    encoded: EncodedPrompts, frames: list[int], num_frames: int, num_latent_frames: int | None = None
) -> EncodedPrompts:
    """One video whose every frame has a text of its own, between those of the prompts at `frames`.

    A token counts at a frame where it counts in a prompt that acts there.
    """
    found = encoded.mapped(lambda states: travelled(states, frames, num_frames, num_latent_frames))
    masks = {
        name: (mask > 0).to(mask)
        for name in ("positive_mask", "negative_mask")
        if (mask := getattr(found, name)) is not None
    }
    return replace(found, **masks)
