"""Hiding the seams between chunks of frames, as the original does after decoding."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.vae.magvit.chunks import count_latents, decoder_chunks
from muybridge.vae.magvit.model import AutoencoderKLMagvit
from muybridge.vae.magvit.streaming import encode_frames


def smooth_output(
    vae: AutoencoderKLMagvit, video: Tensor, generator: torch.Generator | None = None, sample: bool = True
) -> Tensor:
    """Encode and decode a finished video once more, shifted by half a chunk, and average the two half and half.

    Half a chunk at either end stays as it is (for V2 the longer half at the end), and so does a video of no more than
    one chunk. Costs as much as decoding, plus encoding. Source: `smooth_output` of the original's pipelines.

    Args:
        vae: that decoded the video; one without chunks has no seams, and leaves it as it is.
        video: pixels `[b, 3, f, h, w]` in [-1, 1], clamped: the original clamps before and after.
        generator: for the noise of the sampled latents; by default the global one, as in the original.
        sample: False takes the mean of the latents.

    Returns:
        A new tensor of the same shape, not clamped.

    Raises:
        ShapeError: so many frames that those between the ends would not all come back.
        ConfigError: a generator, and `sample=False`.
    """
    return torch.cat(list(smoothed_frames(vae, [video], video.shape[2], generator, sample)), dim=2)


@torch.no_grad()
def smoothed_frames(
    vae: AutoencoderKLMagvit,
    pieces: Iterable[Tensor],
    num_frames: int,
    generator: torch.Generator | None = None,
    sample: bool = True,
) -> Iterator[Tensor]:
    """As `smooth_output`, of a video that comes in pieces: of `decode_frames`' pieces, no more than four are held.

    Args:
        vae: likewise.
        pieces: pixels `[b, 3, n, h, w]` of any numbers of frames, `num_frames` together; not written to.
        num_frames: of the whole video.
        generator: likewise.
        sample: likewise.

    Yields:
        `[b, 3, n, h, w]`, from the first frame to the last.

    Raises:
        ShapeError: when the first piece is asked for, as `smooth_output`; or more or fewer frames than announced.
        ConfigError: likewise.
    """
    if generator is not None and not sample:
        raise ConfigError("A generator has no effect with sample=False; leave one of them out.")
    chunk = vae.shape.frames_per_chunk or num_frames
    start, stop = chunk // 2, num_frames - (chunk - chunk // 2)
    if num_frames <= chunk or stop <= start:
        yield from pieces
        return
    first_pass = _Held(pieces, start, stop)
    moments = encode_frames(vae, first_pass.between_the_ends(), stop - start)
    second_pass = _decoded_again(vae, moments, stop - start, generator, sample)
    ahead = start
    for again in second_pass:
        if ahead:  # frames of the first pass are there once the second has asked for them
            yield first_pass.take(ahead)
            ahead = 0
        yield first_pass.take(again.shape[2]).add_(again).mul_(0.5)
    yield first_pass.take(num_frames - stop)


class _Held:
    """The frames of the first pass that are not averaged yet."""

    def __init__(self, pieces: Iterable[Tensor], start: int, stop: int) -> None:
        """Of `pieces`, of which the second pass sees the frames `start..stop`."""
        self._pieces = pieces
        self._bounds = start, stop
        self._held: deque[Tensor] = deque()

    def between_the_ends(self) -> Iterator[Tensor]:
        """What the second pass sees; what is given out is held until it is taken."""
        start, stop = self._bounds
        position = 0
        for piece in self._pieces:
            self._held.append(piece)
            seen = piece[:, :, max(0, start - position) : max(0, stop - position)]
            position += piece.shape[2]
            if seen.shape[2]:
                yield seen

    def take(self, count: int) -> Tensor:
        """The next frames, as a new tensor; they are no longer held."""
        taken: list[Tensor] = []
        while count:
            piece = self._held.popleft()
            taken.append(piece[:, :, :count])
            count -= taken[-1].shape[2]
            if taken[-1].shape[2] < piece.shape[2]:
                self._held.appendleft(piece[:, :, taken[-1].shape[2] :])
        return torch.cat(taken, dim=2)


def _decoded_again(
    vae: AutoencoderKLMagvit, moments: Iterator[Tensor], num_frames: int, generator: torch.Generator | None, sample: bool
) -> Iterator[Tensor]:
    """Frames of latents, each chunk as soon as the moments of it and of its neighbours are there."""
    count = count_latents(vae.shape, num_frames)
    first = next(moments)
    shape = (len(first), vae.config["latent_channels"], count, *first.shape[3:])
    # In one draw: the numbers of a generator depend on how many are asked for at a time.
    noise = randn_tensor(shape, generator=generator, device=first.device, dtype=first.dtype) if sample else None
    latents = first.new_empty(shape)
    filled = _fill(latents, 0, first, noise)
    frames = vae.decode_chunks(latents)  # which reads the latents of a chunk when that is asked for
    for chunk in decoder_chunks(vae.shape, count):
        while filled < chunk.window_stop:
            filled = _fill(latents, filled, next(moments), noise)
        if filled == count:
            for _ in moments:  # so that all of the first pass is there
                pass
        yield next(frames)


def _fill(latents: Tensor, start: int, moments: Tensor, noise: Tensor | None) -> int:
    """Put the latents of `moments` at `start`; returns where they end."""
    posterior = DiagonalGaussianDistribution(moments)
    stop = start + moments.shape[2]
    drawn = posterior.mean if noise is None else posterior.mean + posterior.std * noise[:, :, start:stop]
    latents[:, :, start:stop] = drawn
    return stop
