"""Hiding the seams between chunks of frames, as the original does after decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.vae.magvit.model import AutoencoderKLMagvit


@torch.no_grad()
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
    if generator is not None and not sample:
        raise ConfigError("A generator has no effect with sample=False; leave one of them out.")
    chunk = vae.shape.frames_per_chunk
    smoothed = video.clone()
    if chunk is None or video.shape[2] <= chunk:
        return smoothed
    first = chunk // 2
    last = video.shape[2] - (chunk - first)
    if last <= first:
        return smoothed
    posterior = vae.encode(video[:, :, first:last], return_dict=False)[0]
    latents = posterior.sample(generator) if sample else posterior.mode()
    for frames in vae.decode_chunks(latents):
        stop = first + frames.shape[2]
        smoothed[:, :, first:stop].add_(frames).mul_(0.5)
        first = stop
    return smoothed
