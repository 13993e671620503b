"""The layers between motion modules: residual blocks, spatial transformers, resampling.

Activations are `[b * f, c, h, w]` in channels-last memory, so the same memory is `[b, f, h, w, c]` for motion modules
and `[b * f, h * w, c]` for attention; nothing is copied to change the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.backbones.unet.config import UNetConfig
from muybridge.backbones.unet.image_attention import ImageAttention, TextAndImage
from muybridge.errors import ConfigError
from muybridge.motion.attention import Attention, FeedForward
from muybridge.motion.linear import Convolution, Linear, linear
from muybridge.motion.normalisation import NormScope, group_norm


@dataclass(frozen=True)
class FrameLayout:
    """How the frames of a batch are folded, and whether residual blocks pool their norms over frames."""

    batch: int
    num_frames: int
    norm_scope: NormScope

    def unfold(self, x: Tensor) -> Tensor:
        """`[b * f, c, h, w]` to features `[b, f, h, w, c]`: a view of channels-last memory."""
        return x.permute(0, 2, 3, 1).unflatten(0, (self.batch, self.num_frames))

    def fold(self, features: Tensor) -> Tensor:
        """Features `[b, f, h, w, c]` to `[b * f, c, h, w]`, channels last in memory."""
        return features.flatten(0, 1).permute(0, 3, 1, 2)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _add(x: Tensor, change: Tensor) -> Tensor:
    """Sum, into `change` when no gradient is recorded; `change` must be a fresh tensor."""
    return x + change if torch.is_grad_enabled() else change.add_(x)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, plus the timestep; norm, SiLU, convolution; plus the input."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int) -> None:
        """Weights from `in_channels` to `out_channels`."""
        super().__init__()
        self.norm1 = nn.GroupNorm(config.norm_groups, in_channels, eps=config.norm_eps)
        self.conv1 = Convolution(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(config.time_embedding_dim, out_channels)
        self.norm2 = nn.GroupNorm(config.norm_groups, out_channels, eps=config.norm_eps)
        self.conv2 = Convolution(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = PointwiseConvolution(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: Tensor, activated_time: Tensor, layout: FrameLayout) -> Tensor:
        """`x [b * f, c, h, w]`; `activated_time [b, d]` is SiLU of the timestep embedding."""
        hidden = self.conv1(_silu(self._normalise(x, self.norm1, layout)))
        shift = self.time_emb_proj(activated_time).repeat_interleave(layout.num_frames, dim=0)[:, :, None, None]
        hidden = hidden + shift if torch.is_grad_enabled() else hidden.add_(shift)
        hidden = self.conv2(_silu(self._normalise(hidden, self.norm2, layout)))
        return _add(x if self.conv_shortcut is None else self.conv_shortcut(x), hidden)

    @staticmethod
    def _normalise(x: Tensor, norm: nn.GroupNorm, layout: FrameLayout) -> Tensor:
        return layout.fold(group_norm(layout.unfold(x), norm, layout.norm_scope))


class SpatialTransformerBlock(nn.Module):
    """Self-attention within each frame, attention to the text (and a picture), gated feed-forward."""

    image_attention: ImageAttention | None

    def __init__(self, width: int, num_heads: int, cross_attention_dim: int) -> None:
        """Weights for tokens of `width` channels."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, num_heads, cross_attention_dim)
        self.register_module("image_attention", None)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, text: Tensor | TextAndImage) -> Tensor:
        """`tokens [b * f, h * w, c]`, `text [b, n, d]`: the frames of a video share one set of keys and values."""
        tokens = _add(tokens, self.attn1(self.norm1(tokens)))
        tokens = _add(tokens, self._attend(self.norm2(tokens), text))
        return _add(tokens, self.ff(self.norm3(tokens)))

    def _attend(self, tokens: Tensor, text: Tensor | TextAndImage) -> Tensor:
        if isinstance(text, Tensor):
            return self.attn2(tokens.view(text.shape[0], -1, tokens.shape[-1]), text).view_as(tokens)
        if self.image_attention is None:
            raise ConfigError("This block has no attention to pictures.")
        return self.image_attention.beside(self.attn2, tokens, text)


class PointwiseConvolution(nn.Conv2d):
    """A 1 x 1 convolution, computed as the matrix product that it is in channels-last memory."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *arguments: Any, **options: Any
    ) -> None:
        """As of a convolution: LoRA tools make theirs of the class of the layer that they wrap."""
        super().__init__(in_channels, out_channels, kernel_size, *arguments, **options)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name that the base class gives it
        """`[n, c, h, w]` to `[n, d, h, w]`."""
        return linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of each frame, between a norm and two projections."""

    def __init__(self, config: UNetConfig, width: int, level: int) -> None:
        """For a level of the U-Net, which has its own depth and number of heads."""
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_groups, width, eps=1e-6)
        self.linear_projection = config.linear_projection
        make_projection = Linear if config.linear_projection else PointwiseConvolution
        self.proj_in = make_projection(width, width)
        self.transformer_blocks = nn.ModuleList(
            SpatialTransformerBlock(width, config.num_heads[level], config.cross_attention_dim)
            for _ in range(config.transformer_depths[level])
        )
        self.proj_out = make_projection(width, width)

    def forward(self, x: Tensor, text: Tensor | TextAndImage, layout: FrameLayout) -> Tensor:
        """`x [b * f, c, h, w]`, `text [b, n, d]`."""
        n, c, h, w = x.shape
        normed = layout.fold(group_norm(layout.unfold(x), self.norm))
        tokens = self._project(self.proj_in, normed).permute(0, 2, 3, 1).reshape(n, h * w, c)
        for block in self.transformer_blocks:
            tokens = block(tokens, text)
        image = tokens.view(n, h, w, c).permute(0, 3, 1, 2)
        return _add(x, self._project(self.proj_out, image))

    def _project(self, projection: nn.Module, image: Tensor) -> Tensor:
        if not self.linear_projection:
            return projection(image)
        return projection(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Halve height and width (rounding up) with a convolution of stride 2."""

    def __init__(self, width: int) -> None:
        """`width` channels in and out."""
        super().__init__()
        self.conv = Convolution(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, c, h, w]` to `[n, c, ceil(h / 2), ceil(w / 2)]`."""
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement to a given size, then a convolution."""

    def __init__(self, width: int) -> None:
        """`width` channels in and out."""
        super().__init__()
        self.conv = Convolution(width, width, 3, padding=1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """`[n, c, h, w]` to `[n, c, height, width]`: the size of the skip that comes next."""
        return self.conv(F.interpolate(x, size=(height, width), mode="nearest"))
