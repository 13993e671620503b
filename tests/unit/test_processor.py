"""Halves on every processor: the same numbers as float32, whichever way they are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from muybridge import processor
from muybridge.motion.attention import Attention, FeedForward
from muybridge.motion.linear import Convolution, Linear, PointwiseConvolution3d
from muybridge.pipelines import AnimateDiffPipeline

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
LAYERS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: Linear(24, 40), (2, 5, 24)),
    "attention": (lambda: Attention(32, 4), (2, 7, 32)),
    "feed forward": (lambda: FeedForward(32), (2, 7, 32)),
    "convolution": (lambda: Convolution(6, 10, 3, padding=1), (2, 6, 5, 7)),
    "convolution with a stride": (lambda: Convolution(6, 10, 3, stride=2, padding=1), (2, 6, 5, 7)),
    "pointwise convolution": (lambda: PointwiseConvolution3d(6, 10), (2, 6, 3, 5, 7)),
}


@HALVES
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("with_gradients", [False, True])
def test_layers_give_the_numbers_of_float32(name: str, dtype: torch.dtype, with_gradients: bool) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().to(dtype)
    x = torch.randn(shape, dtype=dtype)
    with torch.set_grad_enabled(with_gradients):
        found = layer(x)
    with torch.no_grad():
        expected = layer.float()(x.float())
    assert found.dtype is dtype
    assert found.requires_grad is with_gradients
    assert float((found.detach().float() - expected).abs().max() / expected.abs().max()) < 2e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_video_convolution_is_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape).to(dtype) for shape in ((1, 4, 3, 6, 5), (8, 4, 3, 3, 3), (8,)))
    expected = F.conv3d(x.float(), weight.float(), bias.float(), (1, 2, 2), (1, 1, 0))
    with torch.no_grad():
        found = processor.convolve3d(x, weight, bias, (1, 2, 2), (1, 1, 0))
    assert found.dtype is dtype
    tolerance = 1e-6 if dtype is torch.float32 else 1e-2
    assert float((found.float() - expected).abs().max() / expected.abs().max()) < tolerance


@HALVES
def test_a_whole_pipeline_runs_and_gives_back_its_precision(
    make_pipeline: Callable[..., AnimateDiffPipeline], dtype: torch.dtype
) -> None:
    def run(pipeline: AnimateDiffPipeline) -> Tensor:
        options: dict[str, Any] = {"num_frames": 2, "num_inference_steps": 2, "seed": 3, "output_type": "pt"}
        return pipeline("a red circle", **options)

    exact = run(make_pipeline())
    pipeline = make_pipeline().to(dtype)
    found = run(pipeline)
    assert {pipeline.vae.dtype, pipeline.unet.dtype, pipeline.text_encoder.dtype} == {dtype}
    assert float((found - exact).abs().mean()) < 0.02


def test_full_precision_is_always_multiplied() -> None:
    assert processor.multiplies(torch.float32)
    assert processor.multiplies(torch.float64)
    assert not processor.is_slow(torch.zeros(1))


@HALVES
def test_a_half_is_either_multiplied_or_slow(dtype: torch.dtype) -> None:
    assert processor.is_slow(torch.zeros(1, dtype=dtype)) is not processor.multiplies(dtype)
    assert not processor.is_slow(torch.zeros(1, dtype=dtype, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):  # which would undo the widening
        assert not processor.is_slow(torch.zeros(1, dtype=dtype))


def test_training_is_told_of_a_half_only_where_it_is_multiplied() -> None:
    expected = torch.bfloat16 if processor.multiplies(torch.bfloat16) else None
    assert processor.fast_half(torch.device("cpu")) is expected
    assert processor.fast_half(torch.device("meta")) is None


def test_a_missing_operator_costs_nothing_but_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(24, 40), torch.randn(3, 24)
    with torch.no_grad():
        expected = layer(x)
        monkeypatch.setattr(processor, "_onednn", lambda _name: None)  # as in a build of torch without oneDNN
        processor._has.cache_clear()
        processor.multiplies.cache_clear()
        try:
            assert not processor.can_fuse_linear(x, layer.weight)
            assert torch.allclose(layer(x), expected, atol=1e-6)
            assert not processor.multiplies(torch.bfloat16)
            assert layer.to(torch.bfloat16)(x.bfloat16()).dtype is torch.bfloat16
        finally:
            processor._has.cache_clear()
            processor.multiplies.cache_clear()
