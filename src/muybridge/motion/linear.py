"""Linear layers and convolutions as the processor does them fastest.

On a CPU at inference oneDNN adds the bias, and a GELU, while it multiplies, where torch would take one more pass or
another library. Halves that the processor does not multiply are widened to float32 for the product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.processor import can_fuse_linear, fused_linear, in_float32, is_slow


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`tokens [..., in] @ weight [out, in].T + bias`, as `torch.nn.functional.linear`."""
    if can_fuse_linear(tokens, weight):
        return fused_linear(tokens, weight, bias)
    if is_slow(tokens):
        return in_float32(F.linear, tokens, weight, bias)
    return F.linear(tokens, weight, bias)


def gated_linear(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GEGLU: the first half of the outputs times exact GELU of the second half, `[..., in]` to `[..., out / 2]`."""
    if can_fuse_linear(tokens, weight):
        inner = weight.shape[0] // 2
        gate = fused_linear(tokens, weight[inner:], bias[inner:], "gelu")
        return gate.mul_(fused_linear(tokens, weight[:inner], bias[:inner]))
    return gate_values(linear(tokens, weight, bias))


def gate_values(values_and_gates: Tensor) -> Tensor:
    """The first half of the channels times exact GELU of the second half."""
    values, gates = values_and_gates.chunk(2, dim=-1)
    if torch.is_grad_enabled():
        return values * F.gelu(gates)
    return F.gelu(gates).mul_(values)


class Linear(nn.Linear):
    """`torch.nn.Linear` by way of `linear`; adapters that wrap or replace linear layers see an ordinary one."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's own name
        """`[..., in]` to `[..., out]`."""
        return linear(input, self.weight, self.bias)


class Convolution(nn.Conv2d):
    """`torch.nn.Conv2d`; adapters that wrap or replace convolutions see an ordinary one."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002  # torch's name
        if is_slow(input):
            return in_float32(super()._conv_forward, input, weight, bias)
        return super()._conv_forward(input, weight, bias)


class PointwiseConvolution3d(nn.Conv3d):
    """A 1 x 1 x 1 convolution over `[b, c, t, h, w]`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Weights from `in_channels` to `out_channels`."""
        super().__init__(in_channels, out_channels, 1)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002  # torch's name
        if is_slow(input):
            return in_float32(super()._conv_forward, input, weight, bias)
        return super()._conv_forward(input, weight, bias)


def is_bare(layer: nn.Module) -> bool:
    """Whether a layer may be passed over for its weights: no LoRA around it, and no hook that waits for its call."""
    return (
        type(layer) is Linear
        and "forward" not in vars(layer)  # where offloading puts its own
        and not layer._forward_pre_hooks
        and not layer._forward_hooks
    )
