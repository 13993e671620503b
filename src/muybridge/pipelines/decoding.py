"""Latents to frames, a few at a time, so that memory does not grow with the length of the video."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from muybridge.errors import NonFiniteError
from muybridge.vae import decode_images


def decode_frames(vae: AutoencoderKL, latents: Tensor, chunk: int = 8) -> Iterator[Tensor]:
    """Decode one video frame by frame (an image VAE knows no time).

    Args:
        vae: an image VAE.
        latents: `[c, f, h, w]`, scaled as the U-Net sees them.
        chunk: frames decoded at once.

    Yields:
        `float32 [n, 3, h, w]` in [0, 1], on the CPU, n at most `chunk`.

    Raises:
        NonFiniteError: the VAE gave NaN or infinite values, as Stable Diffusion's can in half precision.
    """
    for piece in latents.transpose(0, 1).split(chunk):
        with torch.no_grad():
            pixels = decode_images(vae, piece)
        if not bool(torch.isfinite(pixels).all()):
            raise NonFiniteError(
                f"The VAE gave NaN or infinite pixels in {vae.dtype}. Run it in float32; if it is, check its weights."
            )
        yield pixels.div_(2).add_(0.5).clamp_(0, 1).cpu()


def to_uint8(frames: Tensor) -> np.ndarray:
    """`float [..., 3, h, w]` in [0, 1] to `uint8 [..., h, w, 3]`, rounded."""
    return frames.mul(255).round().to(torch.uint8).movedim(-3, -1).numpy()
