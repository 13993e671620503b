"""The kind `temporal`: AnimateDiff's motion module, self-attention along the frames at every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.motion.attention import Attention, FeedForward
from muybridge.motion.contract import MotionContext, MotionModule, MotionModuleConfig
from muybridge.motion.linear import Linear
from muybridge.motion.normalisation import NormScope, group_norm
from muybridge.motion.positions import sinusoidal_positions
from muybridge.motion.registry import register_motion_module


@dataclass(frozen=True)
class TemporalConfig(MotionModuleConfig):
    """Settings of the kind `temporal`; the defaults are AnimateDiff's for Stable Diffusion 1.5.

    Attributes:
        num_heads: attention heads; must divide the width of every site.
        num_blocks: transformer blocks a module.
        attentions_per_block: temporal self-attentions before each feed-forward (2; 1 in SparseCtrl).
        norm_groups: groups of the first norm; must divide the width.
        norm_scope: whether that norm pools over frames ("video", as diffusers does) or not ("frame", the original);
            in an adapter its numeric preset decides.
    """

    num_heads: int = 8
    num_blocks: int = 1
    attentions_per_block: int = 2
    norm_groups: int = 32
    norm_scope: NormScope = "frame"


class TemporalBlock(nn.Module):
    """Self-attentions over frames, each with norm, positions and residual, then a gated feed-forward."""

    def __init__(self, config: TemporalConfig, width: int) -> None:
        """Weights for one block of the given width."""
        super().__init__()
        attentions = range(config.attentions_per_block)
        self.attention_blocks = nn.ModuleList([Attention(width, config.num_heads) for _ in attentions])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in attentions])
        self.ff_norm = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """`tokens [b * h * w, f, c]`, changed in place when no gradient is recorded; `positions [f, c]`."""
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            normed = norm(tokens)
            normed = normed + positions if torch.is_grad_enabled() else normed.add_(positions)
            tokens = _add(tokens, attention(normed))
        return _add(tokens, self.ff(self.ff_norm(tokens)))


def _add(tokens: Tensor, change: Tensor) -> Tensor:
    return tokens + change if torch.is_grad_enabled() else tokens.add_(change)


@register_motion_module("temporal")
class TemporalMotionModule(MotionModule):
    """Norm, projection in, transformer blocks along the frames, zero-initialised projection out.

    Source: AnimateDiff (arXiv 2307.04725), `animatediff/models/motion_module.py`, `VanillaTemporalModule`.
    """

    config_class: ClassVar[type[MotionModuleConfig]] = TemporalConfig
    config: TemporalConfig

    def __init__(self, config: TemporalConfig, width: int) -> None:
        """Build for a site of `width` channels.

        Raises:
            ConfigError: heads or norm groups do not divide the width.
        """
        super().__init__(config, width)
        if width % config.num_heads or width % config.norm_groups:
            raise ConfigError(
                f"A temporal motion module of width {width} needs num_heads and norm_groups that divide it; "
                f"given {config.num_heads} and {config.norm_groups}."
            )
        self.norm = nn.GroupNorm(config.norm_groups, width, eps=1e-6)
        self.proj_in = Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(config, width) for _ in range(config.num_blocks)])
        self.proj_out = Linear(width, width)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """Mix `[b, f, h, w, c]` along f; rows and columns never see each other here."""
        b, f, h, w, c = features.shape
        normed = group_norm(features, self.norm, self.config.norm_scope)
        # One regrouping in and one out: between them every layer reads frames as neighbouring rows.
        tokens = normed.view(b, f, h * w, c).transpose(1, 2).reshape(b * h * w, f, c)
        tokens = self.proj_in(tokens)
        positions = sinusoidal_positions(context.frame_positions, c).to(tokens.dtype)
        for block in self.transformer_blocks:
            tokens = block(tokens, positions)
        motion = self.proj_out(tokens).view(b, h * w, f, c).transpose(1, 2)
        return motion.reshape(b, f, h, w, c)
