"""The noise a video starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from muybridge.types import LatentShape


def video_generators(seed: int, count: int) -> list[torch.Generator]:
    """A generator for each of `count` videos, seeded `seed`, `seed + 1` and so on; on the CPU.

    All randomness of a video comes from its own, so that it does not depend on what else is in the batch.
    """
    return [torch.Generator().manual_seed(seed + index) for index in range(count)]


def draw_noise(generators: Sequence[torch.Generator], shape: LatentShape) -> Tensor:
    """Standard normal noise `[len(generators), c, f, h, w]`, float32 and on the CPU: the same for every device."""
    size = (shape.channels, shape.num_latent_frames, shape.height, shape.width)
    return torch.stack([torch.randn(size, generator=generator) for generator in generators])
