"""The attention layer: every way through the processor gives the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor

from muybridge.motion.attention import Attention, AttentionProcessor, batch_pieces, plain_attention
from muybridge.processor import multiplies


def query_key_value(batch: int, queries: int, keys: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, n, 4, 8, generator=generator).to(dtype) for n in (queries, keys, keys)]


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("keys", [5, 7])
def test_plain_attention_equals_the_fused_kernel(dtype: torch.dtype, tolerance: float, keys: int) -> None:
    inputs = query_key_value(3, 5, keys, dtype)
    found = plain_attention(*inputs)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), fused(*(t.float() for t in inputs)), atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keys", [16, 256, 257])
def test_the_processor_gives_attention_whatever_it_chooses(dtype: torch.dtype, keys: int) -> None:
    inputs = query_key_value(2, 6, keys, dtype)
    found = AttentionProcessor()(*inputs)
    assert found.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert torch.allclose(found.float(), fused(*(t.float() for t in inputs)), atol=tolerance)


def test_short_bfloat16_takes_the_plain_way_where_a_cpu_multiplies_it_and_no_backend_is_chosen() -> None:
    inputs, processor = query_key_value(2, 40, 200, torch.bfloat16), AttentionProcessor()
    plain, kernel = plain_attention(*inputs), fused(*inputs)
    assert not torch.equal(plain, kernel)
    assert torch.equal(processor(*inputs), plain if multiplies(torch.bfloat16) else kernel)
    processor._attention_backend = AttentionBackendName.NATIVE  # as `set_attention_backend` of a model does
    assert torch.equal(processor(*inputs), kernel)


@pytest.mark.parametrize(("limit", "sizes"), [(40, [10]), (39, [9, 1]), (12, [3, 3, 3, 1]), (4, [1] * 10)])
def test_pieces_fit_the_limit_and_lose_nothing(limit: int, sizes: list[int]) -> None:
    inputs = query_key_value(10, 3, 5)
    pieces = batch_pieces(*inputs, max_batch_heads=limit)
    assert [len(query) for query, _, _ in pieces] == sizes
    assert max(len(query) * query.shape[2] for query, _, _ in pieces) <= limit
    for index, whole in enumerate(inputs):
        assert torch.equal(torch.cat([piece[index] for piece in pieces]), whole)
    assert torch.allclose(torch.cat([fused(*piece) for piece in pieces]), fused(*inputs), atol=1e-6)


def test_pieces_by_default_fit_a_cuda_grid() -> None:
    few, many = (torch.empty(batch, 1, 8, 1) for batch in (8191, 8192))
    assert len(batch_pieces(few, few, few)) == 1
    assert [len(query) for query, _, _ in batch_pieces(many, many, many)] == [8191, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_more_than_a_cuda_grid_at_once() -> None:
    inputs = [tensor.cuda() for tensor in query_key_value(70_000, 4, 4)]
    found = AttentionProcessor()(*inputs)
    assert torch.allclose(found, plain_attention(*inputs), atol=1e-5)


@pytest.mark.parametrize("context_width", [None, 12])
def test_layer(context_width: int | None) -> None:
    torch.manual_seed(0)
    layer = Attention(16, 4, context_width)
    tokens = torch.randn(2, 5, 16)
    context = None if context_width is None else torch.randn(2, 7, context_width)
    source = tokens if context is None else context
    projected = (layer.to_q(tokens), layer.to_k(source), layer.to_v(source))
    expected = layer.to_out[0](fused(*(t.unflatten(-1, (4, 4)) for t in projected)).flatten(-2))
    assert torch.allclose(layer(tokens, context), expected, atol=1e-6)
    assert layer.is_cross_attention is (context is not None)
    names = ["to_k.weight", "to_out.0.bias", "to_out.0.weight", "to_q.weight", "to_v.weight"]
    assert sorted(layer.state_dict()) == names
