"""The attention layer and the feed-forward layer that motion modules and backbones share.

Weight names are Stable Diffusion's (`to_q`, `to_k`, `to_v`, `to_out.0`, `net.0.proj`, `net.2`), so LoRA tools and
published files find them. The product itself is diffusers' dispatcher's, so `set_attention_backend` chooses it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor, nn

from muybridge.motion.linear import Linear, gate_values, gated_linear, is_bare
from muybridge.motion.pieces import one_piece
from muybridge.processor import multiplies

_MAX_PLAIN_KEYS = 256  # beyond this the score matrix costs more memory than the fused kernel loses in time
_MAX_CUDA_BATCH_HEADS = 65_535  # attention kernels put batch x heads on a grid axis of this size


class AttentionProcessor:
    """Holds the backend chosen with `set_attention_backend`; no parallel config, since frames are not sharded here."""

    _attention_backend: AttentionBackendName | None = None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention over `[batch, sequence, heads, head_dim]`, in pieces where a CUDA grid would be too small.

        `mask [batch, keys]` is added to the scores before the softmax.
        """
        if mask is not None:
            bias = mask[:, None, None, :].to(query.dtype)
            return dispatch_attention_fn(query, key, value, attn_mask=bias, backend=self._attention_backend)
        if self._attention_backend is None and _is_short_bfloat16_on_cpu(query, key):
            return plain_attention(query, key, value)
        pieces = batch_pieces(query, key, value) if query.is_cuda else [(query, key, value)]
        results = [dispatch_attention_fn(*piece, backend=self._attention_backend) for piece in pieces]
        return results[0] if len(results) == 1 else torch.cat(results)


def batch_pieces(
    query: Tensor, key: Tensor, value: Tensor, max_batch_heads: int = _MAX_CUDA_BATCH_HEADS
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Split `[batch, sequence, heads, head_dim]` along the batch so that batch x heads of a piece fits the limit."""
    batch, heads = query.shape[0], query.shape[2]
    if batch * heads <= max_batch_heads:
        return [(query, key, value)]
    size = max_batch_heads // heads
    return list(zip(query.split(size), key.split(size), value.split(size), strict=True))


def _is_short_bfloat16_on_cpu(query: Tensor, key: Tensor) -> bool:
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[1] <= _MAX_PLAIN_KEYS
        and multiplies(torch.bfloat16)
    )


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over `[batch, sequence, heads, head_dim]` as two products around a float32 softmax.

    For bfloat16 and short sequences, on a CPU that multiplies it, this takes half the time of torch's fused kernel
    forward, and a seventh to a half of it backward.
    """
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.mT)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value).transpose(1, 2)


class Attention(nn.Module, AttentionModuleMixin):
    """Multi-head attention without biases on queries, keys and values, as in Stable Diffusion."""

    _default_processor_cls = AttentionProcessor
    _available_processors = [AttentionProcessor]
    _supports_qkv_fusion = False

    def __init__(self, width: int, num_heads: int, context_width: int | None = None, bias: bool = False) -> None:
        """`context_width` is the width of what is attended to where that is not the tokens themselves.

        `bias` gives queries, keys and values a bias, as PixArt has it; the output always has one.
        """
        super().__init__()
        self.heads = num_heads
        self.is_cross_attention = context_width is not None
        self.use_bias = bias
        self.to_q = Linear(width, width, bias=bias)
        self.to_k = Linear(context_width or width, width, bias=bias)
        self.to_v = Linear(context_width or width, width, bias=bias)
        self.to_out = nn.ModuleList([Linear(width, width)])
        self.processor = AttentionProcessor()

    def forward(self, tokens: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`tokens [b, s, c]` attend to `context [b, n, d]`, or to themselves; `mask` as in `attend`."""
        source = tokens if context is None else context
        return self.attend(tokens, self._heads(self.to_k(source)), self._heads(self.to_v(source)), mask)

    @one_piece
    def attend(self, tokens: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """`tokens [b, s, c]` attend to what `keys_and_values` gave; `mask [b, n]` is added to the scores."""
        query = self._heads(self.to_q(tokens))
        return self.to_out[0](self.processor(query, key, value, mask).flatten(-2))

    def keys_and_values(self, source: Iterable[Tensor], length: int) -> tuple[Tensor, Tensor]:
        """Keys and values `[b, length, heads, head_dim]` of a sequence given in pieces `[b, m, d]`, at inference."""
        keys = values = torch.empty(0)
        start = 0
        for piece in source:
            key, value = self._key_and_value(piece)
            if start == 0:
                keys, values = (key.new_empty(len(key), length, *key.shape[2:]) for _ in range(2))
            rows = slice(start, start + piece.shape[1])
            keys[:, rows], values[:, rows] = key, value
            start = rows.stop
        return keys, values

    @one_piece
    def _key_and_value(self, source: Tensor) -> tuple[Tensor, Tensor]:
        return self._heads(self.to_k(source)), self._heads(self.to_v(source))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1))


class _GatedProjection(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, tokens: Tensor) -> Tensor:
        if is_bare(self.proj):
            return gated_linear(tokens, self.proj.weight, self.proj.bias)
        return gate_values(self.proj(tokens))


class FeedForward(nn.Module):
    """Linear, exact GEGLU, linear; four times as wide inside. Source: Shazeer, arXiv 2002.05202."""

    def __init__(self, width: int) -> None:
        """`width` channels in and out."""
        super().__init__()
        # Index 1 is the original's dropout, of probability 0 everywhere.
        self.net = nn.ModuleList([_GatedProjection(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., c]` to `[..., c]`."""
        return self.net[2](self.net[0](tokens))
