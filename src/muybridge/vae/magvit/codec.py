"""EasyAnimate's video VAE as a codec: several frames make one latent frame, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import methodcaller

import torch
from torch import Tensor

from muybridge.debug import first_anomalous_module
from muybridge.errors import NonFiniteError, ShapeError
from muybridge.types import LatentShape, VideoShape
from muybridge.vae.codec import Pieces
from muybridge.vae.device import working_device
from muybridge.vae.magvit.chunks import count_frames
from muybridge.vae.magvit.model import AutoencoderKLMagvit, posterior_of
from muybridge.vae.magvit.smoothing import smoothed_frames
from muybridge.vae.magvit.streaming import decode_frames, encode_frames


class VideoCodec:
    """A video VAE and the multiple of pixels that a backbone makes of its latents."""

    def __init__(self, vae: AutoencoderKLMagvit, size_multiple: int) -> None:
        """Height and width are multiples of `size_multiple`."""
        self.vae = vae
        self.size_multiple = size_multiple

    @property
    def frame_multiple(self) -> int:
        """Frames that are made at once."""
        return self.vae.frame_multiple

    @property
    def spatial(self) -> int:
        """Pixels of height and width that a latent stands for."""
        return self.vae.spatial_factor

    @property
    def frames_at_once(self) -> int | None:
        """Frames of a piece; None where all are taken at once."""
        return self.vae.shape.frames_per_chunk or None

    @property
    def latents_per_piece(self) -> int | None:
        """Latent frames of a piece, which the VAE makes independently of the others (2 of 8 frames in V3)."""
        return None if self.frames_at_once is None else self.vae.num_latent_frames(self.vae.frame_multiple)

    def latent_shape(self, shape: VideoShape) -> LatentShape:
        """The latents of a video.

        Raises:
            ShapeError: no positive multiples; names the nearest.
        """
        frames, multiple = self.vae.num_latent_frames(shape.num_frames), self.size_multiple
        if any(side < multiple or side % multiple for side in (shape.height, shape.width)):
            nearest = (max(multiple, round(side / multiple) * multiple) for side in (shape.width, shape.height))
            raise ShapeError(
                f"Width and height must be positive multiples of {multiple}; given {shape.width}x{shape.height}. "
                f"The nearest is {'x'.join(map(str, nearest))}."
            )
        factor = self.spatial
        return LatentShape(self.vae.config["latent_channels"], frames, shape.height // factor, shape.width // factor)

    def encode(self, pieces: Pieces, num_frames: int, generators: Sequence[torch.Generator] = ()) -> Tensor:
        """Latents of a video, sampled by each of `generators`, or their means."""
        vae = self.vae

        def cast() -> Iterator[Tensor]:
            return map(methodcaller("to", vae.dtype), pieces())

        moments = torch.cat(list(encode_frames(vae, cast(), num_frames)), dim=2)
        if not bool(torch.isfinite(moments).all()):
            layer = first_anomalous_module(vae, lambda: list(encode_frames(vae, cast(), num_frames)))
            raise NonFiniteError(_not_finite("latents", vae, layer))
        posterior = posterior_of(moments)
        drawn = [posterior.sample(generator) for generator in generators]
        latents = torch.cat(drawn) if drawn else posterior.mode()
        return latents.float() * vae.config["scaling_factor"]

    def decode(self, latents: Tensor, smoothing: torch.Generator | None = None) -> Iterator[Tensor]:
        """Frames of one video, piece by piece; with `smoothing`, after the original's second pass."""
        vae = self.vae
        scaled = (latents / vae.config["scaling_factor"]).to(working_device(vae), vae.dtype)

        def finished(pixels: Tensor) -> Tensor:
            if not bool(torch.isfinite(pixels).all()):
                layer = first_anomalous_module(vae, lambda: sum(1 for _ in decode_frames(vae, scaled)))
                raise NonFiniteError(_not_finite("pixels", vae, layer))
            return pixels.div_(2).add_(0.5).clamp_(0, 1)[0].transpose(0, 1).cpu()

        # By map, which lets go of a piece before it asks for the next.
        yield from map(finished, decoded_pixels(vae, scaled[None], smoothing is not None, smoothing))


def decoded_pixels(
    vae: AutoencoderKLMagvit, latents: Tensor, is_smoothed: bool, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Pixels of a video, piece by piece.

    Args:
        vae: of videos.
        latents: `[b, c, n, h, w]`, with the scaling factor taken off, in the dtype of the VAE.
        is_smoothed: whether the original's second pass follows.
        generator: for the noise of that pass.

    Yields:
        `float32 [b, 3, f, h, w]`, new tensors; clamped to [-1, 1] but for rounding.
    """
    pieces: Iterator[Tensor] = map(_clamped, decode_frames(vae, latents))
    if is_smoothed:
        pieces = smoothed_frames(vae, pieces, count_frames(vae.shape, latents.shape[2]), generator)
    return map(Tensor.float, pieces)


def _clamped(pixels: Tensor) -> Tensor:
    return pixels.clamp_(-1, 1)


def _not_finite(what: str, vae: AutoencoderKLMagvit, layer: str | None) -> str:
    return (
        f"The VAE gave NaN or infinite {what} in {vae.dtype}, first in {layer or 'its output'}. Run it in float32 or "
        "bfloat16, as in pipeline.vae.to(torch.float32); if it is, check its weights."
    )
