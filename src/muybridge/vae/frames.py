"""Image VAEs: every frame for itself, a few at a time, so that memory does not grow with the length of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from muybridge.errors import NonFiniteError
from muybridge.types import LatentShape, ScaleFactors, VideoShape
from muybridge.vae.codec import Pieces
from muybridge.vae.image import decode_images, encode_images

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_FRAMES = 8  # at once


class FrameCodec:
    """An image VAE as a codec of videos; latents are means."""

    frame_multiple = 1
    latents_per_piece = 1
    frames_at_once = _FRAMES

    def __init__(self, vae: AutoencoderKL, precisely: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """Use `vae`, in the context that `precisely` gives, where it has to run in another precision."""
        self.vae = vae
        self._precisely = precisely

    @property
    def spatial(self) -> int:
        """Pixels of height and width that a latent stands for."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def latent_shape(self, shape: VideoShape) -> LatentShape:
        """The latents of a video. Raises ShapeError as `ScaleFactors.latent_shape`."""
        return ScaleFactors(self.spatial).latent_shape(shape, self.vae.config["latent_channels"])

    @torch.no_grad()
    def encode(self, pieces: Pieces, num_frames: int, generators: Sequence[torch.Generator] = ()) -> Tensor:
        """Mean latents `[1, c, f, h, w]`, whatever the generators."""
        del num_frames, generators
        with self._precisely():
            latents = [encode_images(self.vae, piece[0].transpose(0, 1)) for piece in pieces()]
        return torch.cat(latents).transpose(0, 1)[None]

    def decode(self, latents: Tensor, smoothing: torch.Generator | None = None) -> Iterator[Tensor]:
        """Frames of one video; there are no seams to smooth."""
        del smoothing
        with self._precisely():
            yield from decode_frames(self.vae, latents)


def decode_frames(vae: AutoencoderKL, latents: Tensor, chunk: int = _FRAMES) -> Iterator[Tensor]:
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
