"""Linear layers that use oneDNN on a CPU at inference, where torch would use another library or one more pass.

In float32 torch multiplies with MKL and writes the bias first; oneDNN adds it, and a GELU, while it multiplies: in less
than half the time on a CPU from AMD with AVX-512.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

_DTYPES = (torch.float32, torch.bfloat16)
_PLAIN = (Tensor, nn.Parameter, FakeTensor)  # not quantised or sharded; a fake one stands for a plain one


def _has_fused_linear() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _can_fuse(tokens: Tensor, weight: Tensor) -> bool:
    return (
        tokens.device.type == "cpu"
        and tokens.dtype == weight.dtype
        and tokens.dtype in _DTYPES
        and type(weight) in _PLAIN
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _has_fused_linear()
    )


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`tokens [..., in] @ weight [out, in].T + bias`, as `torch.nn.functional.linear`."""
    if _can_fuse(tokens, weight):
        return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
    return F.linear(tokens, weight, bias)


def gated_linear(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GEGLU: the first half of the outputs times exact GELU of the second half, `[..., in]` to `[..., out / 2]`."""
    if _can_fuse(tokens, weight):
        inner = weight.shape[0] // 2
        fused = torch.ops.mkldnn._linear_pointwise
        gate = fused(tokens, weight[inner:], bias[inner:], "gelu", [], "none")
        return gate.mul_(fused(tokens, weight[:inner], bias[:inner], "none", [], ""))
    return gate_values(F.linear(tokens, weight, bias))


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


def is_bare(layer: nn.Module) -> bool:
    """Whether a layer may be passed over for its weights: no LoRA around it, and no hook that waits for its call."""
    return (
        type(layer) is Linear
        and "forward" not in vars(layer)  # where offloading puts its own
        and not layer._forward_pre_hooks
        and not layer._forward_hooks
    )
