"""Counting the bytes of tensors as they come and go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from muybridge.debug.tensor_memory import TensorMemory

DEVICES = pytest.mark.parametrize("device", ["cpu", "meta"])
KIB = 1024


@DEVICES
def test_counts_what_lives_and_the_most_that_lived(device: str) -> None:
    with TensorMemory() as memory:
        one = torch.zeros(KIB, device=device)
        two = torch.zeros(2 * KIB, dtype=torch.float16, device=device)
        assert memory.live_bytes == 8 * KIB
        del one
        assert memory.live_bytes == 4 * KIB
        three = two + 1
        assert memory.live_bytes == 8 * KIB
        del two, three
    assert memory.live_bytes == 0
    assert memory.peak_bytes == 8 * KIB


@DEVICES
def test_views_and_operations_in_place_count_nothing(device: str) -> None:
    with TensorMemory() as memory:
        x = torch.zeros(4, 256, device=device)
        views = [x.view(-1), x[1:], x.T, x.unflatten(1, (2, -1)), x.detach(), x.expand(3, 4, 256)]
        x.add_(1)
        views[0].mul_(2)
        torch.add(x, 1, out=x)
        assert memory.peak_bytes == 4 * KIB
        del x
        assert memory.live_bytes == 4 * KIB  # the views hold it
        views.clear()
        assert memory.live_bytes == 0


@DEVICES
def test_tensors_from_before_do_not_count(device: str) -> None:
    before = torch.zeros(KIB, device=device)
    with TensorMemory() as memory:
        view = before.view(2, -1)[1:]
        before.add_(1)
        view.add_(1)
        assert memory.peak_bytes == 0
        kept = before * 2
    after = torch.zeros(KIB, device=device)
    assert memory.live_bytes == kept.nbytes
    del kept, after
    assert memory.live_bytes == 0


@DEVICES
def test_several_results_count_each(device: str) -> None:
    x = torch.zeros(256, device=device)
    with TensorMemory() as memory:
        values, indices = x.sort()
        assert memory.live_bytes == values.nbytes + indices.nbytes


@DEVICES
def test_what_autograd_keeps_is_alive(device: str) -> None:
    layer = nn.Sequential(nn.Linear(16, 16, device=device), nn.Sigmoid(), nn.Sigmoid())
    x = torch.zeros(64, 16, device=device)
    with TensorMemory() as recorded:
        y = layer(x).sum()
    held = recorded.live_bytes
    y.backward()
    with torch.no_grad(), TensorMemory() as bare:
        z = layer(x).sum()
    assert held == 2 * x.nbytes + y.nbytes
    assert bare.live_bytes == z.nbytes


def test_attention_on_meta_has_no_scores() -> None:
    tokens = 4096
    query = torch.empty(1, 2, tokens, 64, device="meta", requires_grad=True)
    with TensorMemory() as memory:
        result = F.scaled_dot_product_attention(query, query, query)
        assert result.shape == query.shape
        assert query.nbytes <= memory.peak_bytes <= 1.5 * query.nbytes
        result.sum().backward()
        assert query.grad is not None
    assert memory.peak_bytes < 10 * query.nbytes < tokens**2 * 4
    # Outside, torch is as it was: the matrix is made.
    with TensorMemory() as again:
        F.scaled_dot_product_attention(query, query, query, enable_gqa=True)
    assert again.peak_bytes > tokens**2 * 4


def test_attention_with_a_mask_and_on_a_cpu() -> None:
    query = torch.randn(1, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(8, 8)
    expected = F.scaled_dot_product_attention(query, query, query, attn_mask=mask, scale=0.5)
    with TensorMemory() as memory:
        found = F.scaled_dot_product_attention(query, query, query, attn_mask=mask, scale=0.5)
        meta = [tensor.to("meta") for tensor in (query, query, query, mask)]
        assert F.scaled_dot_product_attention(*meta[:3], attn_mask=meta[3], scale=0.5).shape == query.shape
    assert torch.equal(found, expected)
    assert memory.peak_bytes >= found.nbytes


def test_a_second_use_starts_from_what_is_alive() -> None:
    memory = TensorMemory()
    with memory:
        kept = torch.zeros(KIB)
        torch.zeros(8 * KIB)
    assert memory.peak_bytes == 36 * KIB
    with memory:
        torch.zeros(KIB)
    assert memory.peak_bytes == 8 * KIB
    assert memory.live_bytes == kept.nbytes


def test_an_error_inside_ends_the_counting() -> None:
    memory = TensorMemory()
    with pytest.raises(RuntimeError, match="size"), memory:
        torch.add(torch.zeros(2), torch.zeros(3))
    torch.zeros(KIB)
    assert memory.live_bytes == 0
    assert memory.peak_bytes <= 20


def results_on_meta(dtype: torch.dtype) -> list[torch.Tensor]:
    x, bias = torch.empty(2, 6, 8, dtype=dtype, device="meta"), torch.empty(8, dtype=dtype, device="meta")
    wide, column = torch.empty(8, dtype=torch.float32, device="meta"), torch.empty(2, 6, 1, dtype=dtype, device="meta")
    turned, picture = x.transpose(1, 2), torch.empty(2, 4, 6, 8, dtype=dtype, device="meta")
    spread = picture.to(memory_format=torch.channels_last)
    return [
        *(x + x, x * 2, x - bias, bias - x, x * column, column * x, x + wide, x / 3.0, x**2, 1 - x, turned + turned),
        *(turned + bias.new_empty(6), x + turned.transpose(1, 2), x.exp(), F.silu(turned), F.gelu(x), x.clamp(0, 1)),
        *(x.clone().add_(bias), x.clone().mul_(column), turned.clone().sub_(1), x > 0, spread * 2, spread + picture),
        *(torch.addcmul(x, bias, bias), torch.lerp(x, x, 0.5), torch.addmm(bias, x[0], x.new_empty(8, 8)), x.rsqrt()),
        *(F.layer_norm(x, (8,)), F.layer_norm(turned, (6,)), F.layer_norm(x, (6, 8), x.new_empty(6, 8))),
        *(torch.add(x, x, alpha=2), F.gelu(x[..., :4]), x[:, :3] * 2, x.expand(2, 6, 8) + 1, x[:1].expand(2, 6, 8) * 2),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_that_are_made_without_asking_torch_are_those_of_torch(dtype: torch.dtype) -> None:
    expected = results_on_meta(dtype)
    with TensorMemory():
        found = results_on_meta(dtype)
    for number, (own, theirs) in enumerate(zip(found, expected, strict=True)):
        assert (own.shape, own.stride(), own.dtype) == (theirs.shape, theirs.stride(), theirs.dtype), number
