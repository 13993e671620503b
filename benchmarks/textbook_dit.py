"""EasyAnimate V3's block as a textbook would write it: every step on whole tensors, in the order of its description.

The rival of `dit.py`. Parameter names are those of `muybridge.backbones.dit.block.TransformerBlock`, so that the same
weights load into both; nothing else is shared with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TextbookAttention(nn.Module):
    """Multi-head attention, `[b, n, c]` to the same shape."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        """`bias` of queries, keys and values; the output always has one."""
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(width, width, bias=bias)
        self.to_v = nn.Linear(width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, tokens: Tensor, context: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """`bias [b, 1, 1, m]` is added to the scores of `context [b, m, c]`, by default the tokens themselves."""
        source = tokens if context is None else context
        query, key, value = (
            self._heads(self.to_q(tokens)),
            self._heads(self.to_k(source)),
            self._heads(self.to_v(source)),
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Float32LayerNorm(nn.LayerNorm):
    """Layer norm computed in float32 and cast back."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """`[..., c]` to the same shape."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps).to(input.dtype)


class _Projection(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj(tokens)


class TextbookFeedForward(nn.Module):
    """Linear, GELU (tanh) or exact GEGLU, linear; four times as wide inside."""

    def __init__(self, width: int, gated: bool) -> None:
        """`gated` is GEGLU."""
        super().__init__()
        self.gated = gated
        inner = _Projection(width, (8 if gated else 4) * width)
        self.net = nn.ModuleList([inner, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., c]` to the same shape."""
        hidden = self.net[0](tokens)
        if self.gated:
            values, gates = hidden.chunk(2, dim=-1)
            return self.net[2](values * F.gelu(gates))
        return self.net[2](F.gelu(hidden, approximate="tanh"))


class TextbookMotionBlock(nn.Module):
    """Two self-attentions with positions in time, then a gated feed-forward."""

    def __init__(self, width: int, heads: int, reaches: Sequence[str]) -> None:
        """`reaches`: "temporal" or "global", for each attention."""
        super().__init__()
        self.reaches = tuple(reaches)
        self.attention_blocks = nn.ModuleList([TextbookAttention(width, heads, bias=False) for _ in reaches])
        self.norms = nn.ModuleList([Float32LayerNorm(width) for _ in reaches])
        self.ff_norm = Float32LayerNorm(width)
        self.ff = TextbookFeedForward(width, gated=True)

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        """`[b f, s, c]` to the same shape."""
        _, places, width = tokens.shape
        code = sinusoids(frames, width, tokens)
        for reach, norm, attention in zip(self.reaches, self.norms, self.attention_blocks, strict=True):
            rows = norm(tokens).unflatten(0, (-1, frames)) + code[:, None]
            if reach == "temporal":
                rows = rows.transpose(1, 2).reshape(-1, frames, width)
                mixed = attention(rows).unflatten(0, (-1, places)).transpose(1, 2).reshape(tokens.shape)
            else:
                mixed = attention(rows.flatten(1, 2)).reshape(tokens.shape)
            tokens = tokens + mixed
        return tokens + self.ff(self.ff_norm(tokens))


class TextbookMotion(nn.Module):
    """EasyAnimate's motion module with its residual."""

    def __init__(self, width: int, heads: int, reaches: Sequence[str]) -> None:
        """As `TextbookMotionBlock`."""
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TextbookMotionBlock(width, heads, reaches)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """`[b, c, f, h, w]` to the same shape."""
        batch, _, frames, height, width = features.shape
        images = features.transpose(1, 2).flatten(0, 1)
        tokens = self.proj_in(self.norm(images).permute(0, 2, 3, 1).flatten(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, frames)
        images = self.proj_out(tokens).unflatten(1, (height, width)).permute(0, 3, 1, 2) + images
        return images.unflatten(0, (batch, frames)).transpose(1, 2)


class TextbookBlock(nn.Module):
    """One block: attention within each frame, motion module, attention to the text, feed-forward."""

    def __init__(self, width: int, heads: int, reaches: Sequence[str], eps: float = 1e-6) -> None:
        """`reaches` of the two attentions of the motion module."""
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(6, width))
        self.norm = Float32LayerNorm(width, eps=eps, elementwise_affine=False)
        self.attn1 = TextbookAttention(width, heads, bias=True)
        self.attn_temporal = TextbookMotion(width, heads, reaches)
        self.attn2 = TextbookAttention(width, heads, bias=True)
        self.ff = TextbookFeedForward(width, gated=False)

    def forward(
        self,
        tokens: Tensor,
        extent: tuple[int, int, int],
        modulation: Tensor,
        text: Tensor,
        text_bias: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """One pass.

        Args:
            tokens: `[b, f h w, c]`, frame by frame.
            extent: f, h and w.
            modulation: `[b, 6, c]` of the timestep.
            text: `[b, n, c]`.
            text_bias: `[b, n]`, added to the scores of the text.
            skip: `[b, f h w, c]`, the projected output of an early block.
        """
        frames, height, width = extent
        if skip is not None:
            tokens = tokens + skip
        table = self.scale_shift_table[None] + modulation
        shift, scale, gate, ff_shift, ff_scale, ff_gate = table.chunk(6, dim=1)

        normed = self.norm(tokens) * (1 + scale) + shift
        within = self.attn1(normed.unflatten(1, (frames, -1)).flatten(0, 1))
        tokens = tokens + gate * within.reshape(tokens.shape)

        features = tokens.unflatten(1, (frames, height, width)).permute(0, 4, 1, 2, 3)
        tokens = self.attn_temporal(features).permute(0, 2, 3, 4, 1).flatten(1, 3)

        bias = None if text_bias is None else text_bias[:, None, None, :]
        tokens = tokens + self.attn2(tokens, text, bias)
        normed = self.norm(tokens) * (1 + ff_scale) + ff_shift
        return tokens + ff_gate * self.ff(normed)


def sinusoids(count: int, width: int, like: Tensor) -> Tensor:
    """Places 0, 1, 2 and so on: sine on even, cosine on odd channels, `[count, width]`."""
    frequencies = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10_000.0) / width))
    angles = torch.arange(count, device=like.device)[:, None] * frequencies
    code = torch.zeros(count, width, device=like.device)
    code[:, 0::2] = angles.sin()
    code[:, 1::2] = angles.cos()
    return code.to(like.dtype)
