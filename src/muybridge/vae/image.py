"""Stable Diffusion's image VAE, applied frame by frame; latents are scaled as the U-Net sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from diffusers.models.autoencoders.vae import DecoderOutput
    from diffusers.models.modeling_outputs import AutoencoderKLOutput


def encode_images(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """`pixels [n, 3, h, w]` in [-1, 1] to the mean latents `[n, c, h / s, w / s]`, float32, times `scaling_factor`."""
    posterior = cast("AutoencoderKLOutput", vae.encode(pixels.to(vae.dtype))).latent_dist
    return posterior.mean.float() * vae.config["scaling_factor"]


def decode_images(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Scaled latents `[n, c, h, w]` to pixels `[n, 3, h * s, w * s]`, float32, about in [-1, 1] but not clamped."""
    scaled = latents / vae.config["scaling_factor"]
    return cast("DecoderOutput", vae.decode(scaled.to(vae.dtype))).sample.float()
