"""The kind `low_rank`: attention along the frames in a few channels, told what motion there is to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.errors import ConfigError, ShapeError
from muybridge.motion.attention import Attention
from muybridge.motion.contract import ContextInput, MotionContext, MotionModule, MotionModuleConfig
from muybridge.motion.linear import Linear
from muybridge.motion.positions import sinusoidal_positions
from muybridge.motion.registry import register_motion_module


@dataclass(frozen=True)
class LowRankConfig(MotionModuleConfig):
    """Settings of the kind `low_rank`.

    Attributes:
        motion_rank: channels of the bottleneck.
        num_heads: attention heads; must divide `motion_rank`.
        motion_condition_width: channels of the `motion_condition` that every call then has to give; None for a module
            that knows of the noise level only.

    Raises:
        ConfigError: numbers below 1, or heads that do not divide the rank.
    """

    motion_rank: int = 64
    num_heads: int = 4
    motion_condition_width: int | None = None

    def __post_init__(self) -> None:
        given = (self.motion_rank, self.num_heads, self.motion_condition_width or 1)
        if min(given) < 1 or self.motion_rank % self.num_heads or self.motion_condition_width == 0:
            raise ConfigError(
                f"low_rank needs a motion_rank that num_heads divides, and widths of at least 1; given {self}."
            )


@register_motion_module("low_rank")
class LowRankMotionModule(MotionModule):
    """Norm, projection to a few channels, temporal self-attention there, scale and shift, projection back.

    Scale and shift are a projection of the motion context, that is, of the timestep embedding and the
    `motion_condition`: `attended * (1 + scale) + shift`. Nothing but the norm is as wide as the features, so the
    regrouping for the attention moves a fraction of the memory that it moves in the kind `temporal`.
    """

    config_class: ClassVar[type[MotionModuleConfig]] = LowRankConfig
    context_inputs: ClassVar[tuple[ContextInput, ...]] = ("timestep",)
    config: LowRankConfig

    def __init__(self, config: LowRankConfig, width: int, *, timestep_width: int) -> None:
        """Build for a site of `width` channels in a backbone whose timestep embedding has `timestep_width`."""
        super().__init__(config, width, timestep_width=timestep_width)
        rank = config.motion_rank
        self.norm = nn.LayerNorm(width)
        self.proj_in = Linear(width, rank)
        self.attention = Attention(rank, config.num_heads)
        self.modulation = Linear(timestep_width + (config.motion_condition_width or 0), 2 * rank)
        self.proj_out = Linear(rank, width)
        for layer in (self.modulation, self.proj_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """Mix `[b, f, h, w, c]` over the frames."""
        b, f, h, w, _ = features.shape
        tokens = self.proj_in(self.norm(features)).flatten(2, 3).transpose(1, 2)
        positions = sinusoidal_positions(context.frame_positions, self.config.motion_rank).to(tokens.dtype)
        attended = self.attention((tokens + positions).flatten(0, 1)).unflatten(0, (b, h * w))
        scale, shift = self._modulation(context)[:, None, None].chunk(2, dim=-1)
        modulated = attended * (1 + scale) + shift
        return self.proj_out(modulated.transpose(1, 2).reshape(b, f, h, w, -1))

    def _modulation(self, context: MotionContext) -> Tensor:
        known = F.silu(context.required("timestep_embedding"))
        width = self.config.motion_condition_width
        if width is not None:
            condition = context.required("motion_condition").to(known.dtype)
            if condition.shape != (len(known), width):
                raise ShapeError(
                    f"motion_condition must be [{len(known)}, {width}] for these motion modules; given "
                    f"{list(condition.shape)}."
                )
            known = torch.cat((known, condition), dim=1)
        return self.modulation(known)
