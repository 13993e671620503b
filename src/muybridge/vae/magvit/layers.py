"""The layers of EasyAnimate's video VAE. Features are `[b, c, t, h, w]`, contiguous in that order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from torch import Tensor, nn

from muybridge.motion.attention import AttentionProcessor
from muybridge.motion.pieces import one_piece
from muybridge.processor import convolve3d
from muybridge.vae.magvit.config import MagvitConfig, TemporalMode

NORM_EPS = 1e-6

Borders = tuple[int, int, int, int]
"""Zeros to add at the left, right, top and bottom, as torch's padding counts them."""

Statistics = tuple[Tensor, Tensor]
"""Mean and reciprocal standard deviation of each group, float32 `[b, groups]`."""


def silu(x: Tensor) -> Tensor:
    """SiLU, in place when no gradient is recorded; `x` must be a fresh tensor."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add(x: Tensor, change: Tensor) -> Tensor:
    """Sum, into `change` when no gradient is recorded; `change` must be a fresh tensor."""
    return x + change if torch.is_grad_enabled() else change.add_(x)


Rectangle = tuple[int, int, int, int]
"""Top, bottom, left and right, in pixels of the features; bottom and right are outside."""


def tiles(height: int, width: int, tile_size: int) -> Iterator[Rectangle]:
    """Rectangles of at most `tile_size` that cover a picture without overlap."""
    for top in range(0, height, tile_size):
        for left in range(0, width, tile_size):
            yield top, min(top + tile_size, height), left, min(left + tile_size, width)


class GroupNorm(nn.GroupNorm):
    """Group norm over channel group, time, height and width; of a part of the picture, if the statistics are given."""

    def __init__(self, config: MagvitConfig, channels: int) -> None:
        """For features of `channels` channels."""
        super().__init__(config.norm_groups, channels, eps=NORM_EPS)

    def forward(self, input: Tensor, statistics: Statistics | None = None) -> Tensor:  # noqa: A002  # torch's name
        """`[b, c, t, h, w]` to a fresh tensor of the same shape.

        With `statistics` (of the whole picture, for a tile of it) the result is float32 where the input is narrower.
        """
        if statistics is None:
            if torch.is_grad_enabled() and input.device.type == "cpu":
                # torch's CPU backward is slow on channels-last input, and in 2.13 it can crash there.
                input = input.contiguous()  # noqa: A001
            return super().forward(input)
        mean, reciprocal_std = statistics
        per_group = self.num_channels // self.num_groups
        scale = reciprocal_std.repeat_interleave(per_group, dim=1) * self.weight
        shift = self.bias - mean.repeat_interleave(per_group, dim=1) * scale
        return torch.addcmul(shift[:, :, None, None, None], input, scale[:, :, None, None, None])

    @one_piece
    def statistics(self, x: Tensor, tile_size: int) -> Statistics:
        """Mean and reciprocal standard deviation of each group of `[b, c, t, h, w]`, float32 `[b, groups]`.

        Computed in float32 on one tile at a time and merged, so that large half-precision features are never copied.
        """
        grouped = x.unflatten(1, (self.num_groups, -1))
        weights, means, variances = [], [], []
        for top, bottom, left, right in tiles(x.shape[-2], x.shape[-1], tile_size):
            mean, variance = self.tile_statistics(grouped[..., top:bottom, left:right].flatten(2).float())
            weights.append((bottom - top) * (right - left) / (x.shape[-2] * x.shape[-1]))
            means.append(mean)
            variances.append(variance)
        mean = torch.stack([weight * part for weight, part in zip(weights, means, strict=True)]).sum(0)
        variance = torch.stack(
            [
                weight * (inside + (part - mean).square())
                for weight, part, inside in zip(weights, means, variances, strict=True)
            ]
        ).sum(0)
        return mean, (variance + self.eps).rsqrt()

    @one_piece
    def tile_statistics(self, tile: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each group of a tile, `[b, groups, numbers]` to `[b, groups]`."""
        # In two passes: on a CPU, torch.var_mean takes five times as long.
        mean = tile.mean(dim=2, keepdim=True)
        return mean[..., 0], (tile - mean).square_().mean(dim=2)

    @one_piece
    def activated(self, tile: Tensor, statistics: Statistics) -> Tensor:
        """SiLU of a normalised tile, fresh and in its dtype."""
        return silu(self(tile, statistics)).to(tile.dtype)


class VideoConvolution(nn.Conv3d):
    """A 3 x 3 x 3 convolution that keeps the number of frames (or halves it, rounding up, at a stride of 2).

    In time it is padded as the temporal mode says. Source: `CausalConv3d` of the original, whose mode is a flag left
    over from the last call.
    """

    def __init__(
        self,
        config: MagvitConfig,
        in_channels: int,
        out_channels: int,
        stride: tuple[int, int, int] = (1, 1, 1),
        borders: Borders = (1, 1, 1, 1),
    ) -> None:
        """`borders` are the zeros around a whole picture."""
        super().__init__(in_channels, out_channels, 3, stride=stride)
        self.is_causal = config.mode is TemporalMode.MAGVIT
        self.borders = borders

    def forward(self, input: Tensor, borders: Borders | None = None) -> Tensor:  # noqa: A002  # torch's name
        """`[b, c, t, h, w]` to `[b, d, t', h', w']`; a tile inside a picture has other `borders` than the picture."""
        left, right, top, bottom = self.borders if borders is None else borders
        frames = 1
        if self.is_causal:
            input = torch.cat([input[:, :, :1].expand(-1, -1, 2, -1, -1), input], dim=2)  # noqa: A001
            frames = 0
        if left == right and top == bottom:  # padded by the convolution itself, without a copy
            return self._convolve(input, (frames, top, left))
        return self._convolve(F.pad(input, (left, right, top, bottom)), (frames, 0, 0))

    def _convolve(self, x: Tensor, padding: tuple[int, int, int]) -> Tensor:
        return convolve3d(x, self.weight, self.bias, self.stride, padding)


class SpaceTimeAttention(nn.Module, AttentionModuleMixin):
    """One head over all positions of all frames of a chunk, after a group norm, added to the input."""

    _default_processor_cls = AttentionProcessor
    _available_processors = [AttentionProcessor]
    _supports_qkv_fusion = False

    def __init__(self, config: MagvitConfig, width: int) -> None:
        """`width` channels in and out."""
        super().__init__()
        self.heads = 1
        self.is_cross_attention = False
        self.use_bias = True
        self.group_norm = GroupNorm(config, width)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Linear(width, width)
        self.processor = AttentionProcessor()

    def forward(self, x: Tensor) -> Tensor:
        """`[b, c, t, h, w]` to the same shape."""
        tokens = self.group_norm(x).flatten(2).mT
        query, key, value = (project(tokens).unsqueeze(2) for project in (self.to_q, self.to_k, self.to_v))
        attended = self.to_out(self.processor(query, key, value).squeeze(2))
        return x + attended.mT.unflatten(2, x.shape[2:])


def enlarge(x: Tensor) -> Tensor:
    """Nearest-neighbour enlargement to twice the height and width, in one copy."""
    b, c, t, h, w = x.shape
    return x[..., :, None, :, None].expand(b, c, t, h, 2, w, 2).reshape(b, c, t, 2 * h, 2 * w)


def double_frames(x: Tensor) -> Tensor:
    """Linear interpolation to twice as many frames, half-pixel centres: `[b, c, t, h, w]` to `[b, c, 2 t, h, w]`."""
    if torch.is_grad_enabled():
        before = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
        after = torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
        return torch.stack([torch.lerp(x, before, 0.25), torch.lerp(x, after, 0.25)], dim=3).flatten(2, 3)
    b, c, t, h, w = x.shape
    doubled = x.new_empty(b, c, 2 * t, h, w)
    doubled[:, :, 0] = x[:, :, 0]
    doubled[:, :, -1] = x[:, :, -1]
    torch.lerp(x[:, :, 1:], x[:, :, :-1], 0.25, out=doubled[:, :, 2::2])
    torch.lerp(x[:, :, :-1], x[:, :, 1:], 0.25, out=doubled[:, :, 1:-1:2])
    return doubled


def double_frames_after_first(x: Tensor) -> Tensor:
    """As `double_frames`, but the first frame stays single: t frames become 2 t - 1."""
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], double_frames(x[:, :, 1:])], dim=2)
