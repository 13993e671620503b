"""Stages of making a video as plans of memory run them: on tensors without numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from muybridge.runtime.plan import PlanSettings
from muybridge.types import LatentShape
from muybridge.vae import decode_images
from muybridge.vae.pieces import set_exact_pieces

_VAE_FRAMES = 8  # that an image VAE decodes at once


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of making a video.

    Attributes:
        parts: that work in it.
        run: it, under some settings.
        decided_by: the settings besides precision that change what it needs.
    """

    parts: Sequence[nn.Module]
    run: Callable[[PlanSettings], Any]
    decided_by: tuple[str, ...] = ()


def decode_stage(vae: Any, latent: LatentShape) -> Stage:
    """Decoding by an image VAE, some frames at a time."""

    def decode(settings: PlanSettings) -> Tensor:
        set_exact_pieces(vae, settings.tiled_vae)
        frames = min(_VAE_FRAMES, latent.num_latent_frames)
        return decode_images(vae, empty(frames, latent.channels, latent.height, latent.width))

    return Stage([vae], decode, ("tiled_vae",))


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without numbers."""
    return torch.empty(shape, dtype=dtype)


def token_ids(count: int, tokens: int) -> Tensor:
    """Of `count` prompts."""
    return torch.zeros(count, tokens, dtype=torch.long)
