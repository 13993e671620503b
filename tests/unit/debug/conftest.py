"""Small networks that things can go wrong in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module


class Block(nn.Module):
    """Two layers, with an operation between them that belongs to neither."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.divisor = 1.0

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.second(torch.tanh(self.first(x)) / torch.tensor(self.divisor)) * scale


class Net(nn.Module):
    """A denoiser in small: blocks and a noise level."""

    def __init__(self, blocks: int = 3, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, width)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x, scale=1.0)
        return self.head(x) * timestep.reshape(-1, 1).sign()


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def make_input() -> Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net() -> Net:
    return make_net()


@pytest.fixture
def x() -> Tensor:
    return make_input()


@pytest.fixture(autouse=True)
def _nothing_stays_behind():
    """Whatever a test does, no hook of torch's global kind outlives it."""
    yield
    assert not torch_module._global_forward_hooks
    assert not torch_module._global_forward_pre_hooks
