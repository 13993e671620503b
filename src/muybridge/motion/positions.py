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


def stretch_positions(positions: Tensor, trained_frames: int) -> Tensor:
    """Draw positions `[f]` together so that the last is `trained_frames - 1`, where it would lie beyond.

    The motion of a clip as long as those of training is thereby stretched over more frames. Float32.
    """
    positions = positions.float()
    factor = (trained_frames - 1) / positions.amax().clamp(min=max(trained_frames - 1, 1))
    return positions * factor


def cap_positions(positions: Tensor, trained_frames: int) -> Tensor:
    """Let all positions `[f]` beyond `trained_frames - 1` be that one. Float32."""
    return positions.float().clamp(max=trained_frames - 1)
