"""Videos in and out of the VAE as streams, so that memory does not grow with their length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter

import torch
from torch import Tensor

from muybridge.errors import ShapeError
from muybridge.vae.magvit.chunks import encoder_chunks, require_frames_that_return
from muybridge.vae.magvit.config import MagvitConfig
from muybridge.vae.magvit.model import AutoencoderKLMagvit


class WithoutGradients(Iterator[Tensor]):
    """Makes what an iterator gives without recording gradients, and keeps none of it.

    `torch.no_grad` around a generator would keep each item until the next is made.
    """

    def __init__(self, source: Iterator[Tensor]) -> None:
        """Of `source`."""
        self._source = source

    @torch.no_grad()
    def __next__(self) -> Tensor:
        """The next item."""
        return next(self._source)


def decode_frames(vae: AutoencoderKLMagvit, latents: Tensor) -> Iterator[Tensor]:
    """The frames of `vae.decode`, chunk by chunk; each chunk is finished and never changes.

    Args:
        vae: with any tiling.
        latents: `[c, n, h, w]` or `[b, c, n, h, w]`, with the scaling factor taken off.

    Yields:
        `[3, f, h, w]` or `[b, 3, f, h, w]`, not clamped, on the device and in the dtype of the VAE; f is 1 or
        `vae.frame_multiple` for numbers of frames that `vae.num_latent_frames` accepts.

    Raises:
        ShapeError: latents of another shape.
    """
    with torch.no_grad():
        chunks = WithoutGradients(vae.decode_chunks(latents if latents.ndim != 4 else latents[None]))
    return chunks if latents.ndim != 4 else map(itemgetter(0), chunks)


@torch.no_grad()
def encode_frames(vae: AutoencoderKLMagvit, pieces: Iterable[Tensor], num_frames: int) -> Iterator[Tensor]:
    """The moments of `vae.encode`, chunk by chunk, of a video that comes in pieces.

    A chunk that shows what the one before showed is not encoded again: masks, and videos of which little is given, are
    mostly made of such.

    Args:
        vae: with any tiling.
        pieces: pixels `[b, 3, f, h, w]` in [-1, 1] of any numbers of frames, `num_frames` together. One is asked for
            only when it is needed, and kept until its last frame is encoded.
        num_frames: of the whole video; an odd one, in slice mode, has its first frame encoded alone.

    Yields:
        `[b, 2 c, n, h / 8, w / 8]`: mean and log variance of the next n latents.

    Raises:
        ShapeError: frames that would not come back, pieces of another shape, or more or fewer frames than announced.
    """
    config: MagvitConfig = vae.shape
    require_frames_that_return(config, num_frames)
    source, waiting, given = iter(pieces), [], 0
    last: tuple[Tensor, Tensor] | None = None
    for chunk in encoder_chunks(config, num_frames):
        while given < chunk.stop:
            piece = next(source, None)
            if piece is None:
                raise ShapeError(f"The video was announced with {num_frames} frames and ended after {given}.")
            if piece.ndim != 5:
                raise ShapeError(f"Pieces must be [b, 3, f, h, w]; given {tuple(piece.shape)}.")
            waiting.append(piece)
            given += piece.shape[2]
        frames = waiting[0] if len(waiting) == 1 else torch.cat(waiting, dim=2)
        ready = chunk.stop - chunk.start
        pixels, waiting = frames[:, :, :ready], [frames[:, :, ready:]]
        if last is None or not _same(last[0], pixels):
            # A chunk on its own is a video of one chunk.
            last = pixels, vae.moments(pixels)
        yield last[1]
    if given > num_frames or next(source, None) is not None:
        raise ShapeError(f"The video was announced with {num_frames} frames and has more.")


def _same(a: Tensor, b: Tensor) -> bool:
    has_numbers = type(a) is Tensor and not a.is_meta  # shapes are planned without
    return has_numbers and a.shape == b.shape and torch.equal(a, b)
