"""Batches of whole videos to mean latents, and what a model that takes pictures is given of them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from muybridge.vae.magvit.model import AutoencoderKLMagvit


def encode_videos(vae: AutoencoderKLMagvit, pixels: Tensor) -> Tensor:
    """`pixels [b, f, 3, h, w]` in [-1, 1] to the mean latents `[b, c, n, h / s, w / s]` times `scaling_factor`."""
    posterior: Any = cast("Any", vae.encode(pixels.transpose(1, 2).to(vae.dtype))).latent_dist
    return posterior.mean.float() * vae.config["scaling_factor"]


def encode_given(vae: AutoencoderKLMagvit, pixels: Tensor, unknown: Tensor) -> Tensor:
    """Scaled mean latents of the mask (1 where unknown) and of the video (black where unknown), one after the other.

    The VAE's pieces are independent of each other, so each kind of mask and all that is black are encoded only once.

    Args:
        vae: in slice mode.
        pixels: `[b, f, 3, h, w]` in [-1, 1].
        unknown: bool `[b, f]`.

    Returns:
        `[b, 2 c, n, h / s, w / s]`.
    """
    size = 1 if pixels.shape[1] == 1 else vae.frame_multiple
    parts = pixels.unflatten(1, (-1, size)).flatten(0, 1)
    gone = unknown.unflatten(1, (-1, size)).flatten(0, 1)
    masks, which = gone.unique(dim=0, return_inverse=True)
    mask_latents = encode_videos(vae, masks[..., None, None, None].expand(-1, -1, *pixels.shape[2:]).float())[which]
    seen = ~gone.all(dim=1)
    black = torch.full_like(parts[:1], -1.0)
    shown = torch.where(gone[seen][..., None, None, None], black, parts[seen])
    encoded = encode_videos(vae, torch.cat((black, shown)))
    video_latents = encoded[:1].repeat(len(parts), 1, 1, 1, 1)
    video_latents[seen] = encoded[1:]
    latents = torch.cat((mask_latents, video_latents), dim=1)
    return latents.unflatten(0, (len(pixels), -1)).transpose(1, 2).flatten(2, 3)


def encode_masked(vae: AutoencoderKLMagvit, pixels: Tensor, unknown: Tensor) -> Tensor:
    """As `encode_given`, for masks `bool [b, f, h, w]` that differ within a frame.

    Args:
        vae: of either kind.
        pixels: `[b, f, 3, h, w]` in [-1, 1].
        unknown: true where something is to be made.

    Returns:
        `[b, 2 c, n, h / s, w / s]`.
    """
    mask = unknown[:, :, None].expand_as(pixels)
    masked = torch.where(mask, torch.full_like(pixels, -1.0), pixels)
    return torch.cat((encode_videos(vae, mask.to(pixels)), encode_videos(vae, masked)), dim=1)
