"""One block of EasyAnimate's transformer: a PixArt block with a motion site after its attention within the frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muybridge.backbones.dit.config import TransformerConfig
from muybridge.backbones.dit.layers import GeluFeedForward, modulated_norm
from muybridge.motion import MotionContext, MotionModule
from muybridge.motion.attention import Attention
from muybridge.motion.pieces import one_piece, pieces


@dataclass(frozen=True)
class Conditions:
    """What every block of one forward pass is told.

    Attributes:
        modulation: `[b, 6, c]` from the timestep: shift, scale and gate of the attention, then of the feed-forward.
        text: `[b, n, c]`, text tokens and then image tokens; `[b, f, n, c]` where each frame has its own.
        text_bias: `[b, n]` or `[b, f, n]`, added to the scores of the attention to `text`, or None where every token
            counts.
        motion: handed to the motion module.
    """

    modulation: Tensor
    text: Tensor
    text_bias: Tensor | None
    motion: MotionContext


class TransformerBlock(nn.Module):
    """Attention within each frame, motion module, attention to the text, feed-forward.

    Without gradients everything is taken a piece at a time: beside the features, nothing is whole but what the motion
    module needs. Source: EasyAnimate V3, `easyanimate/models/attention.py`, `TemporalTransformerBlock`.
    """

    attn_temporal: MotionModule | None

    def __init__(self, config: TransformerConfig) -> None:
        """Weights of one block; its motion site is empty."""
        super().__init__()
        self.eps = config.norm_eps
        self.scale_shift_table = nn.Parameter(torch.randn(6, config.width) / config.width**0.5)
        self.attn1 = Attention(config.width, config.num_attention_heads, bias=True)
        self.register_module("attn_temporal", None)
        self.attn2 = Attention(config.width, config.num_attention_heads, config.width, bias=True)
        self.ff = GeluFeedForward(config.width)

    def forward(self, features: Tensor, conditions: Conditions, skip: Tensor | None = None) -> Tensor:
        """`features [b, f, h, w, c]` to the same shape; `skip`, the projected output of an early block, is added first.

        Neither is changed unless it is `skip`, which at inference becomes the sum.
        """
        if skip is not None:
            features = features + skip if torch.is_grad_enabled() else skip.add_(features)
        # [b, 6, c] to six of [b, 1, 1, c], for features [b, f, h * w, c].
        table = self.scale_shift_table + conditions.modulation
        shift, scale, gate, ff_shift, ff_scale, ff_gate = table[:, :, None, None].unbind(1)
        shape = features.shape
        tokens = self._within_frames(features.flatten(2, 3), shift, scale, gate)
        if self.attn_temporal is not None:
            tokens = self.attn_temporal(tokens.view(shape), conditions.motion).view(tokens.shape)
        step = self._train if torch.is_grad_enabled() else self._infer_
        return step(tokens, conditions, ff_shift, ff_scale, ff_gate).view(shape)

    @one_piece
    def _within_frames(self, tokens: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        batch, frames, places, _ = tokens.shape
        if torch.is_grad_enabled():
            return tokens + gate * self._seen(tokens, shift, scale)
        # A new tensor, as an early block's input is the output that a long skip keeps.
        result = torch.empty_like(tokens)
        for some in pieces(frames, batch * places):
            torch.addcmul(tokens[:, some], self._seen(tokens[:, some], shift, scale), gate, out=result[:, some])
        return result

    @one_piece
    def _seen(self, tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """What the tokens `[b, f, h * w, c]` see of their frame."""
        normed = modulated_norm(tokens, shift, scale, self.eps)
        return self.attn1(normed.flatten(0, 1)).view(tokens.shape)

    @one_piece
    def _fed_forward(self, tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return self.ff(modulated_norm(tokens, shift, scale, self.eps))

    def _train(self, tokens: Tensor, given: Conditions, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        if given.text.ndim == 4:
            attended = self.attn2(tokens.flatten(0, 1), *_folded(given, slice(None)))
        else:
            attended = self.attn2(tokens.flatten(1, 2), given.text, given.text_bias)
        tokens = tokens + attended.view(tokens.shape)
        return tokens + gate * self._fed_forward(tokens, shift, scale)

    @one_piece
    def _infer_(self, tokens: Tensor, given: Conditions, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        batch, frames, places, _ = tokens.shape
        by_frame = given.text.ndim == 4
        shared = None if by_frame else self.attn2.keys_and_values([given.text], given.text.shape[1])
        for some in pieces(frames, batch * places):
            part = tokens[:, some]
            if shared is None:
                attended = self.attn2(part.flatten(0, 1), *_folded(given, some))
            else:
                attended = self.attn2.attend(part.flatten(1, 2), *shared, given.text_bias)
            part.add_(attended.view(part.shape))
            part.addcmul_(self._fed_forward(part, shift, scale), gate)
        return tokens


def _folded(given: Conditions, frames: slice) -> tuple[Tensor, Tensor | None]:
    """Text and bias of some frames, each frame a row of the batch."""
    bias = None if given.text_bias is None else given.text_bias[:, frames].flatten(0, 1)
    return given.text[:, frames].flatten(0, 1), bias
