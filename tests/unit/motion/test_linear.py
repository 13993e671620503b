"""The fused layers beside the plain ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from muybridge.backbones.unet.layers import PointwiseConvolution
from muybridge.motion.linear import Linear, gated_linear, is_bare, linear

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("with_bias", [True, False])
def test_fused_linear_equals_plain(dtype: torch.dtype, with_bias: bool) -> None:
    torch.manual_seed(0)
    tokens, weight = torch.randn(3, 5, 48, dtype=dtype), torch.randn(64, 48, dtype=dtype) / 7
    bias = torch.randn(64, dtype=dtype) if with_bias else None
    plain = F.linear(tokens, weight, bias)
    with torch.no_grad():
        fused = linear(tokens, weight, bias)
    assert fused.shape == plain.shape
    assert float((fused - plain).abs().max() / plain.abs().max()) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_fused_gate_equals_plain(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tokens, weight = torch.randn(2, 7, 48, dtype=dtype), torch.randn(64, 48, dtype=dtype) / 7
    bias = torch.randn(64, dtype=dtype)
    values, gates = F.linear(tokens, weight, bias).chunk(2, dim=-1)
    plain = values * F.gelu(gates)
    with torch.no_grad():
        fused = gated_linear(tokens, weight, bias)
    assert float((fused - plain).abs().max() / plain.abs().max()) <= TOLERANCE[dtype]
    assert torch.equal(gated_linear(tokens, weight, bias), plain)  # with gradients: the plain way


def test_gradients_flow_and_autocast_is_respected() -> None:
    layer = Linear(8, 4)
    layer(torch.randn(2, 8)).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 8)).dtype == torch.bfloat16


def test_pointwise_convolution_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer = PointwiseConvolution(6, 10)
    x = torch.randn(2, 6, 3, 5)
    plain = F.conv2d(x, layer.weight, layer.bias)
    with torch.no_grad():
        assert torch.allclose(layer(x), plain, atol=1e-6)


def test_a_hooked_layer_is_not_passed_over() -> None:
    layer = Linear(4, 4)
    assert is_bare(layer)
    handle = layer.register_forward_hook(lambda *_: None)
    assert not is_bare(layer)
    handle.remove()
    layer.forward = layer.forward  # as offloading does
    assert not is_bare(layer)
    assert not is_bare(torch.nn.Linear(4, 4))
