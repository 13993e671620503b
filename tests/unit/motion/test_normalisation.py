"""Group norm over frames one by one, or together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from muybridge.motion.normalisation import NormScope, group_norm


@pytest.fixture
def norm() -> nn.GroupNorm:
    made = nn.GroupNorm(4, 8)
    nn.init.normal_(made.weight, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(made.bias, generator=torch.Generator().manual_seed(1))
    return made


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("scope", ["frame", "video"])
def test_equals_torch_on_the_pooled_layout(norm: nn.GroupNorm, scope: NormScope, grad: bool) -> None:
    x = torch.randn(2, 3, 4, 5, 8, generator=torch.Generator().manual_seed(2))
    channels_first = x.permute(0, 4, 1, 2, 3)
    with torch.set_grad_enabled(grad):
        if scope == "video":
            expected = norm(channels_first)
        else:
            expected = torch.stack([norm(channels_first[:, :, i]) for i in range(3)], dim=2)
        found = group_norm(x, norm, scope)
    assert torch.allclose(found, expected.permute(0, 2, 3, 4, 1), atol=1e-5)


def test_the_result_is_channels_last_without_gradients(norm: nn.GroupNorm) -> None:
    with torch.no_grad():
        assert group_norm(torch.randn(1, 2, 3, 4, 8), norm).is_contiguous()


def test_only_the_weights_may_need_gradients(norm: nn.GroupNorm) -> None:
    group_norm(torch.randn(1, 2, 3, 3, 8), norm).square().sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.isfinite().all()
