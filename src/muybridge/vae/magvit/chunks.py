"""Which frames the network takes together, and how many frames come of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, pairwise

from muybridge.errors import ShapeError
from muybridge.vae.magvit.config import MagvitConfig, TemporalMode


@dataclass(frozen=True)
class DecoderChunk:
    """Latent frames `start..stop`, decoded from the window `window_start..window_stop` that includes their neighbours.

    Attributes:
        doubles_time: False for the lone first latent of slice mode, which stays one frame.
    """

    start: int
    stop: int
    window_start: int
    window_stop: int
    doubles_time: bool

    @property
    def kept(self) -> slice:
        """The latents of the chunk, inside the window."""
        return slice(self.start - self.window_start, self.stop - self.window_start)


def encoder_chunks(config: MagvitConfig, num_frames: int) -> list[slice]:
    """Frames that the encoder takes together; it sees nothing beyond them."""
    size = config.frames_per_chunk or num_frames
    first = 1 if config.mode is TemporalMode.SLICE and num_frames % 2 else 0
    bounds = [*range(first, num_frames, size), num_frames]
    bounds = [0, *bounds] if first else bounds
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def decoder_chunks(config: MagvitConfig, num_latent_frames: int) -> list[DecoderChunk]:
    """Latents that the decoder takes together.

    In slice mode the chunk before and the one after are seen by the first layers; the lone first latent is neither.
    """
    size = config.latents_per_chunk or num_latent_frames
    if config.mode is TemporalMode.MAGVIT:
        starts = range(0, num_latent_frames, size)
        ends = [min(start + size, num_latent_frames) for start in starts]
        return [DecoderChunk(start, end, start, end, True) for start, end in zip(starts, ends, strict=True)]
    first = num_latent_frames % 2
    chunks = [DecoderChunk(0, 1, 0, 1, False)] if first else []
    for start in range(first, num_latent_frames, size):
        window = max(first, start - size), min(start + 2 * size, num_latent_frames)
        chunks.append(DecoderChunk(start, min(start + size, num_latent_frames), *window, True))
    return chunks


def frames_of_chunk(config: MagvitConfig, chunk: DecoderChunk) -> int:
    """How many frames the decoder makes of a chunk."""
    latents = chunk.stop - chunk.start
    if not chunk.doubles_time:
        return latents
    if config.mode is TemporalMode.MAGVIT:
        return (latents - 1) * config.temporal_factor + 1
    return latents * config.temporal_factor


def count_latents(config: MagvitConfig, num_frames: int) -> int:
    """Latent frames that the encoder makes of any number of frames."""
    lengths = (chunk.stop - chunk.start for chunk in encoder_chunks(config, num_frames))
    return sum(-(-length // config.temporal_factor) for length in lengths)


def count_frames(config: MagvitConfig, num_latent_frames: int) -> int:
    """Frames that the decoder makes of any number of latent frames."""
    return sum(frames_of_chunk(config, chunk) for chunk in decoder_chunks(config, num_latent_frames))


def require_frames_that_return(config: MagvitConfig, num_frames: int) -> None:
    """Refuse to encode a number of frames of which decoding would give another number.

    Raises:
        ShapeError: names the nearest numbers that come back whole.
    """

    def returns(frames: int) -> bool:
        return frames > 0 and count_frames(config, count_latents(config, frames)) == frames

    if not returns(num_frames):
        # One frame always returns, so the search downwards ends.
        below = next((n for n in range(num_frames - 1, 0, -1) if returns(n)), None)
        above = next(n for n in count(max(num_frames, 0) + 1) if returns(n))
        allowed = str(above) if below is None else f"{below} or {above}"
        raise ShapeError(f"{num_frames} frames would not all come back from the latents; give {allowed}.")


def nearest_allowed(multiple: int, offset: int, given: int) -> int:
    """The nearest to `given` of 1 and the numbers `k * multiple + offset`, k from 1; the smaller of two."""
    steps = max(1, (given - offset) // multiple)
    candidates = (1, steps * multiple + offset, (steps + 1) * multiple + offset)
    return min(candidates, key=lambda candidate: (abs(candidate - given), candidate))
