"""Patches, positions, feed-forward and modulation of a PixArt-type transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.backbones.dit.config import TransformerConfig
from muybridge.motion.linear import Convolution, Linear


class PatchEmbed(nn.Module):
    """Patches of each frame to tokens, with the place of each in its frame added."""

    def __init__(self, config: TransformerConfig) -> None:
        """Weights of the projection; positions are computed."""
        super().__init__()
        self.config = config
        self.proj = Convolution(config.in_channels, config.width, config.patch_size, stride=config.patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        """`[b, c, f, h, w]` to `[b, f, h / p, w / p, width]`."""
        batch, _, frames = latents.shape[:3]
        patches = self.proj(latents.transpose(1, 2).flatten(0, 1)).permute(0, 2, 3, 1)
        rows, columns = patches.shape[1:3]
        across, down = (self._axis(count, patches) for count in (columns, rows))
        half = self.config.width // 2
        features = torch.empty_like(patches, memory_format=torch.contiguous_format)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            places = torch.cat((across.expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)), dim=-1)
            return (patches + places).unflatten(0, (batch, frames))
        torch.add(patches[..., :half], across, out=features[..., :half])
        torch.add(patches[..., half:], down[:, None], out=features[..., half:])
        return features.unflatten(0, (batch, frames))

    def _axis(self, count: int, like: Tensor) -> Tensor:
        """Code of the places along one axis, `[count, width / 2]`: all sines, then all cosines.

        The places span as much as those of the image model, whatever their number. Source: PixArt, arXiv 2310.00426.
        """
        precision = torch.float32 if like.device.type == "mps" else torch.float64
        base = self.config.sample_size // self.config.patch_size
        places = torch.arange(count, device=like.device, dtype=precision)
        places = places / (count / base) / self.config.interpolation_scale
        bands = self.config.width // 4
        frequencies = 10_000.0 ** -(torch.arange(bands, device=like.device, dtype=precision) / bands)
        angles = places[:, None] * frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=1).float().to(like.dtype)


class _GeluProjection(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, inner)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.gelu(self.proj(tokens), approximate="tanh")


class GeluFeedForward(nn.Module):
    """Linear, tanh-approximated GELU, linear; four times as wide inside."""

    def __init__(self, width: int) -> None:
        """`width` channels in and out."""
        super().__init__()
        # Index 1 is the original's dropout, of probability 0.
        self.net = nn.ModuleList([_GeluProjection(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., c]` to `[..., c]`."""
        return self.net[2](self.net[0](tokens))


def modulated_norm(features: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm without weights, times `1 + scale`, plus `shift`; statistics are float32 in every precision."""
    normed = F.layer_norm(features, features.shape[-1:], eps=eps)
    if torch.is_grad_enabled():
        return normed * (1 + scale) + shift
    return normed.mul_(1 + scale).add_(shift)
