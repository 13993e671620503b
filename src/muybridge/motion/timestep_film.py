"""The kind `timestep_film`: every position scaled and shifted by what it is and by how noisy it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.motion.contract import ContextInput, FrameOrder, MotionContext, MotionModule, MotionModuleConfig
from muybridge.motion.linear import Linear
from muybridge.motion.pieces import pieces
from muybridge.motion.registry import register_motion_module


@dataclass(frozen=True)
class TimestepFilmConfig(MotionModuleConfig):
    """Settings of the kind `timestep_film`.

    Attributes:
        num_layers: networks whose mean decides.
        hidden_dim: channels inside each.

    Raises:
        ConfigError: numbers below 1.
    """

    trained_frames: int | None = None
    num_layers: int = 3
    hidden_dim: int = 256

    def __post_init__(self) -> None:
        if min(self.num_layers, self.hidden_dim) < 1:
            raise ConfigError(f"timestep_film needs num_layers and hidden_dim of at least 1; given {self}.")


@register_motion_module("timestep_film")
class TimestepFilmMotionModule(MotionModule):
    """The mean of small networks of (features, timestep) gives each position a scale and a shift.

    Frames do not see each other; in the kind `compose` it stands beside one that mixes them. Source of the form:
    Perez et al., arXiv 1709.07871.
    """

    config_class: ClassVar[type[MotionModuleConfig]] = TimestepFilmConfig
    context_inputs: ClassVar[tuple[ContextInput, ...]] = ("timestep",)
    frame_order: FrameOrder = "equivariant"
    causal: bool = True
    config: TimestepFilmConfig

    def __init__(self, config: TimestepFilmConfig, width: int, *, timestep_width: int) -> None:
        """Build for a site of `width` channels in a backbone whose timestep embedding has `timestep_width`."""
        super().__init__(config, width, timestep_width=timestep_width)
        # The networks have two layers and their outputs are averaged, so side by side they are one network of their
        # widths together: two products instead of 2 * num_layers, with the mean's divisor inside the last weights.
        hidden = config.num_layers * config.hidden_dim
        self.norm = nn.LayerNorm(width)
        self.features_in = Linear(width, hidden)
        self.timestep_in = Linear(timestep_width, hidden, bias=False)
        self.proj_out = Linear(hidden, 2 * width)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """`features * scale + shift` of `[b, f, h, w, c]`; at inference a piece at a time."""
        time = self.timestep_in(F.silu(context.required("timestep_embedding")))[:, None, None]
        tokens = features.flatten(2, 3)
        if torch.is_grad_enabled():
            scale, shift = self._scale_and_shift(tokens, time)
            return (tokens * scale + shift).reshape(features.shape)
        result = torch.empty_like(tokens)
        for some in pieces(tokens.shape[2], tokens.shape[0] * tokens.shape[1]):
            scale, shift = self._scale_and_shift(tokens[:, :, some], time)
            result[:, :, some] = torch.mul(tokens[:, :, some], scale).add_(shift)
        return result.reshape(features.shape)

    def _scale_and_shift(self, tokens: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.features_in(self.norm(tokens))
        hidden = F.silu(hidden + time) if torch.is_grad_enabled() else F.silu(hidden.add_(time), inplace=True)
        scale, shift = self.proj_out(hidden).chunk(2, dim=-1)
        return scale, shift
