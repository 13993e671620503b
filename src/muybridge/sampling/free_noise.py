"""FreeNoise: the noise of a long video out of that of a short one, so that its windows agree on what they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from muybridge.errors import ConfigError, ShapeError
from muybridge.sampling.noise import draw_noise
from muybridge.types import LatentShape

NoiseOrder = Literal["shuffle", "repeat"]


def free_noise(
    generators: Sequence[torch.Generator],
    shape: LatentShape,
    window: int = 16,
    stride: int = 4,
    order: NoiseOrder = "shuffle",
) -> Tensor:
    """Noise like `draw_noise`, in which frames after the first window repeat those before them.

    Its first `window` frames are those of `draw_noise` with the same generators. Source: arXiv 2310.15169; with one
    generator, the same numbers as diffusers' "shuffle_context".

    Args:
        generators: one for each video.
        shape: of a video's latents.
        window: frames of the windows that the video is made in.
        stride: frames that are shuffled together; the windows' size less their overlap.
        order: "shuffle" rearranges each group of frames as it comes again, "repeat" does not.

    Returns:
        `[len(generators), c, f, h, w]`, float32 and on the CPU.

    Raises:
        ShapeError: a window larger than the video.
        ConfigError: a stride outside 1 to `window`, or an unknown order.
    """
    num_frames = shape.num_latent_frames
    if not 1 <= window <= num_frames:
        raise ShapeError(
            f"FreeNoise needs a window from 1 to the {num_frames} frames of the video; given {window}. Make it "
            "smaller, or leave FreeNoise out."
        )
    if not 1 <= stride <= window:
        raise ConfigError(f"The stride of FreeNoise must be from 1 to its window of {window}; given {stride}.")
    if order not in get_args(NoiseOrder):
        raise ConfigError(f"The order of FreeNoise must be one of {', '.join(get_args(NoiseOrder))}; given {order!r}.")
    noise = draw_noise(generators, shape)
    for video, generator in zip(noise, generators, strict=True):
        for start in range(window, num_frames, stride):
            sources = torch.arange(start - window, start - window + stride)
            if order == "shuffle":
                sources = sources[torch.randperm(stride, generator=generator)]
            count = min(stride, num_frames - start)
            video[:, start : start + count] = video[:, sources[:count]]
    return noise
