"""The core that the transformer kinds share: attention along the frames or over the whole video, around one residual.

Which attention looks where is all that distinguishes the kinds `temporal` and `hybrid`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.motion.attention import Attention, FeedForward
from muybridge.motion.contract import MotionContext, MotionModule, MotionModuleConfig
from muybridge.motion.linear import Linear
from muybridge.motion.normalisation import NormScope, group_norm
from muybridge.motion.pieces import pieces
from muybridge.motion.positions import sinusoidal_positions

Reach = Literal["temporal", "global"]
"""What a token attends to: its own position in all frames, or every position of every frame."""
REACHES: tuple[Reach, ...] = ("temporal", "global")


@dataclass(frozen=True)
class TransformerMotionConfig(MotionModuleConfig):
    """Settings of every transformer kind.

    Attributes:
        num_heads: attention heads; must divide the width of every site.
        num_blocks: transformer blocks a module.
        norm_groups: groups of the first norm; must divide the width.
        norm_scope: whether that norm pools over frames ("video", as diffusers does) or not ("frame", the originals);
            in an adapter its numeric preset decides.
    """

    num_heads: int = 8
    num_blocks: int = 1
    norm_groups: int = 32
    norm_scope: NormScope = "frame"

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """What each attention of a block looks at, in order."""
        raise NotImplementedError


class MotionTransformerBlock(nn.Module):
    """Self-attentions, each with norm, positions and residual, then a gated feed-forward.

    Without gradients the tokens are changed in place and taken a piece at a time, so that beside them only keys and
    values of a global attention are ever whole.
    """

    def __init__(self, config: TransformerMotionConfig, width: int) -> None:
        """Weights for one block of the given width."""
        super().__init__()
        self.reaches = config.reaches
        self.attention_blocks = nn.ModuleList([Attention(width, config.num_heads) for _ in self.reaches])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in self.reaches])
        self.ff_norm = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """`tokens [b, h * w, f, c]`, `positions [f, c]`."""
        step = self._infer_ if not torch.is_grad_enabled() else self._train
        return step(tokens, positions)

    def _train(self, tokens: Tensor, positions: Tensor) -> Tensor:
        for reach, norm, attention in zip(self.reaches, self.norms, self.attention_blocks, strict=True):
            sequences = _sequences(norm(tokens) + positions, reach)
            tokens = tokens + attention(sequences).view_as(tokens)
        return tokens + self.ff(self.ff_norm(tokens))

    def _infer_(self, tokens: Tensor, positions: Tensor) -> Tensor:
        batch, places, frames, _ = tokens.shape
        for reach, norm, attention in zip(self.reaches, self.norms, self.attention_blocks, strict=True):
            if reach == "global":
                _attend_globally_(tokens, positions, norm, cast("Attention", attention))
                continue
            for rows in pieces(places, batch * frames):
                part = tokens[:, rows]
                normed = norm(part).add_(positions)
                part.add_(attention(_sequences(normed, reach)).view_as(part))
        for rows in pieces(places, batch * frames):
            part = tokens[:, rows]
            part.add_(self.ff(self.ff_norm(part)))
        return tokens


def _sequences(tokens: Tensor, reach: Reach) -> Tensor:
    # Attention does not care for the order of its tokens, so place by place is as good as frame by frame.
    return tokens.flatten(0, 1) if reach == "temporal" else tokens.flatten(1, 2)


def _attend_globally_(tokens: Tensor, positions: Tensor, norm: nn.Module, attention: Attention) -> None:
    batch, places, frames, width = tokens.shape
    rows = list(pieces(places, batch * frames))

    def normed(part: slice) -> Tensor:
        return norm(tokens[:, part]).add_(positions).flatten(1, 2)

    if len(rows) == 1:
        tokens.add_(attention(normed(rows[0])).view_as(tokens))
        return
    source = attention.keys_and_values((normed(part) for part in rows), places * frames)
    for part in rows:
        # Keys and values are complete, so what is already changed is not read again.
        change = attention.attend(normed(part), *source)
        tokens[:, part].add_(change.view(batch, -1, frames, width))


class TransformerMotionModule(MotionModule):
    """Norm, projection in, transformer blocks, zero-initialised projection out.

    Source: `VanillaTemporalModule` of AnimateDiff (arXiv 2307.04725, `animatediff/models/motion_module.py`) and of
    EasyAnimate (`easyanimate/models/motion_module.py`).
    """

    config_class: ClassVar[type[MotionModuleConfig]] = TransformerMotionConfig
    config: TransformerMotionConfig

    def __init__(self, config: TransformerMotionConfig, width: int) -> None:
        """Build for a site of `width` channels.

        Raises:
            ConfigError: heads or norm groups do not divide the width.
        """
        super().__init__(config, width)
        if width % config.num_heads or width % config.norm_groups:
            raise ConfigError(
                f"A motion module of width {width} needs num_heads and norm_groups that divide it; "
                f"given {config.num_heads} and {config.norm_groups}."
            )
        self.norm = nn.GroupNorm(config.norm_groups, width, eps=1e-6)
        self.proj_in = Linear(width, width)
        blocks = range(config.num_blocks)
        self.transformer_blocks = nn.ModuleList([MotionTransformerBlock(config, width) for _ in blocks])
        self.proj_out = Linear(width, width)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """Mix `[b, f, h, w, c]` over the frames."""
        b, f, h, w, c = features.shape
        normed = group_norm(features, self.norm, self.config.norm_scope)
        # One regrouping in and one out: between them every layer reads frames as neighbouring rows.
        tokens = self.proj_in(normed.view(b, f, h * w, c).transpose(1, 2).contiguous())
        del normed
        positions = sinusoidal_positions(context.frame_positions, c).to(tokens.dtype)
        for block in self.transformer_blocks:
            tokens = block(tokens, positions)
        return self.proj_out(tokens).transpose(1, 2).reshape(b, f, h, w, c)
