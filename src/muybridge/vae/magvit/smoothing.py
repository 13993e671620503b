"""Hiding the seams between chunks of frames, as the original does after decoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from muybridge.errors import ConfigError, ShapeError
from muybridge.vae.magvit.chunks import count_latents, decoder_chunks, encoder_chunks, require_frames_that_return
from muybridge.vae.magvit.model import AutoencoderKLMagvit, posterior_of
from muybridge.vae.magvit.streaming import WithoutGradients


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


def smoothed_frames(
    vae: AutoencoderKLMagvit,
    pieces: Iterable[Tensor],
    num_frames: int,
    generator: torch.Generator | None = None,
    sample: bool = True,
) -> Iterator[Tensor]:
    """As `smooth_output`, of a video that comes in pieces: of `decode_frames`' pieces, no more than three are held.

    Args:
        vae: likewise.
        pieces: pixels `[b, 3, n, h, w]` of any numbers of frames, `num_frames` together; not written to.
        num_frames: of the whole video.
        generator: likewise.
        sample: likewise.

    Yields:
        `[b, 3, n, h, w]`, from the first frame to the last.

    Raises:
        ShapeError: as `smooth_output`; or, later, fewer frames than announced.
        ConfigError: likewise.
    """
    if generator is not None and not sample:
        raise ConfigError("A generator has no effect with sample=False; leave one of them out.")
    chunk = vae.shape.frames_per_chunk or num_frames
    start, stop = chunk // 2, num_frames - (chunk - chunk // 2)
    if num_frames <= chunk or stop <= start:
        return iter(pieces)
    require_frames_that_return(vae.shape, stop - start)
    held = _Held(pieces, chunk)
    seen = (held.read(start + each.start, start + each.stop) for each in encoder_chunks(vae.shape, stop - start))
    again = _decoded_again(vae, map(partial(_moments, vae), seen), stop - start, generator, sample)
    return WithoutGradients(_averaged(held, again, start, num_frames - stop))


def _averaged(held: _Held, again: Iterator[Tensor], start: int, behind: int) -> Iterator[Tensor]:
    """The first `start` frames, the means of both passes, and the frames `behind` them."""
    if start:
        yield held.take(start)
    for second in again:
        yield held.take(second.shape[2]).add_(second).mul_(0.5)
        del second  # what comes next takes memory
    yield held.take(behind)


class _Held:
    """The frames of the first pass that are not averaged yet.

    Attributes:
        start: of them, in the video.
    """

    def __init__(self, pieces: Iterable[Tensor], size: int) -> None:
        """Of `pieces`, asked for when they are needed and let go of `size` frames at a time."""
        self.start = 0
        self._held: list[Tensor] = []
        self._source = (part for piece in pieces for part in piece.split(size, dim=2))

    def read(self, start: int, stop: int) -> Tensor:
        """Frames `start..stop`, none of them taken; a new tensor."""
        end = self.start + sum(part.shape[2] for part in self._held)
        while end < stop:
            self._held.append(self._next(end))
            end += self._held[-1].shape[2]
        found, position = [], self.start
        for part in self._held:
            found.append(part[:, :, max(0, start - position) : max(0, stop - position)])
            position += part.shape[2]
        return torch.cat([each for each in found if each.shape[2]], dim=2)

    def take(self, number: int) -> Tensor:
        """The next frames, a new tensor; they are no longer held."""
        taken = self.read(self.start, self.start + number)
        self.start += number
        while number:
            part = self._held.pop(0)
            if part.shape[2] > number:
                self._held.insert(0, part[:, :, number:].clone())  # without the memory of those that are taken
            number -= min(number, part.shape[2])
        return taken

    def _next(self, end: int) -> Tensor:
        part = next(self._source, None)
        if part is None:
            raise ShapeError(f"The video was announced with more frames than the {end} that it has.")
        return part


def _moments(vae: AutoencoderKLMagvit, frames: Tensor) -> Tensor:
    return vae.encode(frames, return_dict=False)[0].parameters


def _decoded_again(
    vae: AutoencoderKLMagvit,
    moments: Iterator[Tensor],
    num_frames: int,
    generator: torch.Generator | None,
    sample: bool,
) -> Iterator[Tensor]:
    """Frames of latents, each chunk as soon as the moments of it and of its neighbours are there."""
    number, first = count_latents(vae.shape, num_frames), next(moments)
    shape = (len(first), vae.config["latent_channels"], number, *first.shape[3:])
    # In one draw: the numbers of a generator depend on how many are asked for at a time.
    noise = randn_tensor(shape, generator=generator, device=first.device, dtype=first.dtype) if sample else None
    latents = first.new_empty(shape)
    filled = _fill(latents, 0, first, noise)
    del first
    frames = vae.decode_chunks(latents)  # which reads the latents of a chunk when that is asked for
    for chunk in decoder_chunks(vae.shape, number):
        while filled < chunk.window_stop:
            filled = _fill(latents, filled, next(moments), noise)
        yield next(frames)


def _fill(latents: Tensor, start: int, moments: Tensor, noise: Tensor | None) -> int:
    """Put the latents of `moments` at `start`; returns where they end."""
    posterior = posterior_of(moments)
    stop = start + moments.shape[2]
    drawn = posterior.mean if noise is None else posterior.mean + posterior.std * noise[:, :, start:stop]
    latents[:, :, start:stop] = drawn
    return stop
