"""Residual blocks, and the levels of encoder and decoder.

Every layer takes `tile_size`: None computes a chunk whole; a number computes its convolutions in tiles of that many
pixels, with the same result in less memory, without gradients (`halo.py`).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from muybridge.motion.linear import PointwiseConvolution3d
from muybridge.vae.magvit.config import NO_RESAMPLING, MagvitConfig, Resampling, TemporalMode
from muybridge.vae.magvit.halo import Activated, Enlarged, Plain, convolve, tiles
from muybridge.vae.magvit.layers import (
    GroupNorm,
    SpaceTimeAttention,
    VideoConvolution,
    add,
    double_frames,
    double_frames_after_first,
    enlarge,
    silu,
)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU, convolution; plus the input."""

    def __init__(self, config: MagvitConfig, in_channels: int, out_channels: int) -> None:
        """Weights from `in_channels` to `out_channels`."""
        super().__init__()
        self.norm1 = GroupNorm(config, in_channels)
        self.conv1 = VideoConvolution(config, in_channels, out_channels)
        self.norm2 = GroupNorm(config, out_channels)
        self.conv2 = VideoConvolution(config, out_channels, out_channels)
        self.shortcut = PointwiseConvolution3d(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: Tensor, tile_size: int | None = None) -> Tensor:
        """`[b, c, t, h, w]` to `[b, d, t, h, w]`. In tiles, the memory of `x` is used up: it must not be read again."""
        if tile_size is not None:
            hidden = convolve(self.conv1, Activated(x, self.norm1, tile_size), tile_size)
            total = x if self.shortcut is None else _pointwise_in_tiles(self.shortcut, x, tile_size)
            return convolve(self.conv2, Activated(hidden, self.norm2, tile_size), tile_size, add_to=total)
        hidden = self.conv1(silu(self.norm1(x)))
        hidden = silu(self.norm2(hidden))  # by the same name, so that what went in is freed
        hidden = self.conv2(hidden)
        return add(x if self.shortcut is None else self.shortcut(x), hidden)


def _pointwise_in_tiles(convolution: nn.Conv3d, x: Tensor, tile_size: int) -> Tensor:
    """A 1 x 1 x 1 convolution; the result overwrites the first channels of `x` where it is not wider."""
    channels = convolution.out_channels
    narrows = channels <= x.shape[1]
    result = x[:, :channels] if narrows else x.new_empty(x.shape[0], channels, *x.shape[2:])
    for top, bottom, left, right in tiles(x.shape[-2], x.shape[-1], tile_size):
        where = (..., slice(top, bottom), slice(left, right))
        result[where] = convolution(x[where])
    return result


class Level(nn.Module):
    """Rows that are run one by one, each recomputed in the backward pass where gradient checkpointing is on."""

    def __init__(self) -> None:
        """Subclasses add their rows."""
        super().__init__()
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def _run(self, row: nn.Module, x: Tensor, *options: int | None) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(row, x, *options)
        return row(x, *options)


class Downsampler(nn.Module):
    """Halve height and width, and the frames where the level does so; one row of zeros is added right and below."""

    def __init__(self, config: MagvitConfig, width: int, factors: Resampling) -> None:
        """`width` channels in and out."""
        super().__init__()
        stride = (factors.time, factors.space, factors.space)
        self.conv = VideoConvolution(config, width, width, stride, borders=(0, 1, 0, 1))

    def forward(self, x: Tensor, tile_size: int | None = None) -> Tensor:
        """`[b, c, t, h, w]` to `[b, c, ceil(t / 2) or t, h / 2, w / 2]`."""
        return self.conv(x) if tile_size is None else convolve(self.conv, Plain(x), tile_size)


class Upsampler(nn.Module):
    """Double height and width, convolve, and then double the frames where the level does so."""

    def __init__(self, config: MagvitConfig, width: int, factors: Resampling) -> None:
        """`width` channels in and out."""
        super().__init__()
        self.conv = VideoConvolution(config, width, width)
        double = double_frames if config.mode is TemporalMode.SLICE else double_frames_after_first
        self._in_time = double if factors.time > 1 else None

    def forward(self, x: Tensor, doubles_time: bool = True, tile_size: int | None = None) -> Tensor:
        """`[b, c, t, h, w]` to `[b, c, 2 t (2 t - 1 in the causal mode) or t, 2 h, 2 w]`."""
        in_time = self._in_time if doubles_time else None
        if tile_size is not None:
            return convolve(self.conv, Enlarged(x), tile_size, finish=in_time)
        x = self.conv(enlarge(x))
        return x if in_time is None else in_time(x)


class DownLevel(Level):
    """Residual blocks, then a smaller size, except where the level keeps it."""

    def __init__(self, config: MagvitConfig, level: int) -> None:
        """`level` counts from the finest."""
        super().__init__()
        width = config.block_out_channels[level]
        finer = config.block_out_channels[max(0, level - 1)]
        self.convs = nn.ModuleList(
            ResidualBlock(config, finer if i == 0 else width, width) for i in range(config.layers_per_block)
        )
        factors = config.down[level]
        self.downsampler = Downsampler(config, width, factors) if factors != NO_RESAMPLING else None

    def forward(self, x: Tensor, tile_size: int | None = None) -> Tensor:
        """`[b, c, t, h, w]` to the width and size of the next level."""
        for block in self.convs:
            x = self._run(block, x, tile_size)
        return x if self.downsampler is None else self.downsampler(x, tile_size)


class MidLevel(Level):
    """Residual block, attention over the whole chunk, residual block; the coarsest level of encoder and decoder."""

    def __init__(self, config: MagvitConfig) -> None:
        """For the last width of the config."""
        super().__init__()
        width = config.block_out_channels[-1]
        self.convs = nn.ModuleList(ResidualBlock(config, width, width) for _ in range(2))
        self.attentions = nn.ModuleList([SpaceTimeAttention(config, width)])

    def forward(self, x: Tensor, tile_size: int | None = None) -> Tensor:
        """`[b, c, t, h, w]` to the same shape; the attention is never in tiles."""
        x = self._run(self.convs[0], x, tile_size)
        x = self._run(self.attentions[0], x)
        return self._run(self.convs[1], x, tile_size)


class UpLevel(Level):
    """One residual block more than in the encoder, then a larger size, except where the level keeps it."""

    def __init__(self, config: MagvitConfig, index: int) -> None:
        """`index` counts from the coarsest."""
        super().__init__()
        widths = config.block_out_channels[::-1]
        width, coarser = widths[index], widths[max(0, index - 1)]
        self.convs = nn.ModuleList(
            ResidualBlock(config, coarser if i == 0 else width, width) for i in range(config.layers_per_block + 1)
        )
        factors = config.up[index]
        self.upsampler = Upsampler(config, width, factors) if factors != NO_RESAMPLING else None

    def forward(self, x: Tensor, doubles_time: bool = True, tile_size: int | None = None) -> Tensor:
        """`[b, c, t, h, w]` to the width and size of the next level."""
        for block in self.convs:
            x = self._run(block, x, tile_size)
        return x if self.upsampler is None else self.upsampler(x, doubles_time, tile_size)
