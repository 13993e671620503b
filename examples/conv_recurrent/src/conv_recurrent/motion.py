"""The kind `conv_recurrent`: a convolution along the frames, then a gated recurrence; no attention.

Its cost grows with the number of frames and not with its square, and it has no position table: how far it can look is a
matter of its gates. Written against the public contract of Muybridge alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from muybridge.errors import ConfigError
from muybridge.motion import MotionContext, MotionModule, MotionModuleConfig, register_motion_module
from torch import Tensor, nn


@dataclass(frozen=True)
class ConvRecurrentConfig(MotionModuleConfig):
    """Settings of the kind `conv_recurrent`.

    Attributes:
        trained_frames: how many frames the weights have seen; more are allowed, with a warning.
        hidden_width: channels in which frames are mixed; even.
        kernel_size: frames of the convolution: odd where both directions are seen, any number where one is.
        bidirectional: half of the channels run from the last frame to the first. Without, a frame sees itself and
            earlier ones only.

    Raises:
        ConfigError: an odd `hidden_width`, or a kernel that does not fit the direction.
    """

    trained_frames: int | None = 16
    hidden_width: int = 64
    kernel_size: int = 3
    bidirectional: bool = True

    def __post_init__(self) -> None:
        if self.hidden_width < 2 or self.hidden_width % 2:
            raise ConfigError(f"conv_recurrent needs an even hidden_width; given {self.hidden_width}.")
        if self.kernel_size < 1 or (self.bidirectional and self.kernel_size % 2 == 0):
            raise ConfigError(
                "conv_recurrent needs a kernel_size of at least 1, odd if it is bidirectional; given "
                f"{self.kernel_size}."
            )


@register_motion_module("conv_recurrent")
class ConvRecurrentMotionModule(MotionModule):
    """Norm, projection to few channels, convolution along the frames, gated recurrence, projection back.

    A frame's state is a blend of the state before and of a candidate, `h = (1 - z) h_before + z candidate`. Gate `z`
    and candidate depend on the features alone, as in a minimal GRU (Feng et al., arXiv 2410.01201), so that they come
    of two matrix products for all frames and only the blend goes frame by frame. The noise level shifts the gates: in
    much noise a frame may lean on its neighbours more.
    """

    config_class: ClassVar[type[MotionModuleConfig]] = ConvRecurrentConfig
    context_inputs = ("timestep",)
    config: ConvRecurrentConfig

    def __init__(self, config: ConvRecurrentConfig, width: int, *, timestep_width: int) -> None:
        """Build for a site of `width` channels in a backbone whose timestep embedding has `timestep_width`."""
        super().__init__(config, width, timestep_width=timestep_width)
        hidden = config.hidden_width
        self.causal = not config.bidirectional
        self.norm = nn.LayerNorm(width)
        self.proj_in = nn.Linear(width, hidden)
        self.conv = nn.Conv1d(hidden, hidden, config.kernel_size)
        self.gates_and_candidates = nn.Linear(hidden, 2 * hidden)
        self.time_to_gates = nn.Linear(timestep_width, hidden)
        self.proj_out = nn.Linear(hidden, width)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """Mix `[b, f, h, w, c]` over the frames."""
        b, _, h, w, _ = features.shape
        hidden = self.proj_in(self.norm(features))
        sequences = hidden.permute(0, 2, 3, 4, 1).flatten(0, 2)  # [b * h * w, hidden, f]
        hidden = F.silu(self.conv(F.pad(sequences, self._padding()))).unflatten(0, (b, h, w))
        hidden = hidden.permute(0, 4, 1, 2, 3)
        gates, candidates = self.gates_and_candidates(hidden).chunk(2, dim=-1)
        time = self.time_to_gates(F.silu(context.required("timestep_embedding")))
        gates = torch.sigmoid(gates + time[:, None, None, None])
        return self.proj_out(hidden + self._run_along(gates, candidates))

    def _padding(self) -> tuple[int, int]:
        """Frames of zeros before and after."""
        more = self.config.kernel_size - 1
        return (more // 2, more // 2) if self.config.bidirectional else (more, 0)

    def _run_along(self, gates: Tensor, candidates: Tensor) -> Tensor:
        """The states of all frames, `[b, f, h, w, hidden]`."""
        if not self.config.bidirectional:
            return blend(gates, candidates)
        (gate, back_gate), (candidate, back_candidate) = gates.chunk(2, dim=-1), candidates.chunk(2, dim=-1)
        back = blend(back_gate.flip(1), back_candidate.flip(1)).flip(1)
        return torch.cat((blend(gate, candidate), back), dim=-1)


def blend(gates: Tensor, candidates: Tensor) -> Tensor:
    """`h = (1 - gate) h_before + gate candidate` along the frames of `[b, f, ...]`, from zero."""
    state = torch.zeros_like(candidates[:, 0])
    states = []
    for gate, candidate in zip(gates.unbind(1), candidates.unbind(1), strict=True):
        state = torch.lerp(state, candidate, gate)
        states.append(state)
    return torch.stack(states, dim=1)
