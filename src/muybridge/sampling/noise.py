"""The noise a video starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from muybridge.types import LatentShape


def draw_noise(seeds: Sequence[int], shape: LatentShape) -> Tensor:
    """Standard normal noise `[len(seeds), c, f, h, w]` in float32, drawn on the CPU so that every device gets the same.

    Each video has a generator of its own: its noise does not depend on what else is in the batch.
    """
    size = (shape.channels, shape.num_latent_frames, shape.height, shape.width)
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
