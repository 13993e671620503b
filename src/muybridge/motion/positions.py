"""Where a frame is in time, as a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_positions(positions: Tensor, width: int) -> Tensor:
    """Sine on even, cosine on odd channels: `[f]` to `[f, width]`, float32, on the device of `positions`.

    Computed for any position, so there is no largest number of frames. Source: Vaswani et al., arXiv 1706.03762,
    section 3.5; AnimateDiff `motion_module.py` `PositionalEncoding`.
    """
    frequencies = torch.exp(
        torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) * (-math.log(10_000.0) / width)
    )
    angles = positions.float()[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :width]
