"""Which layer goes wrong first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from muybridge.debug import first_anomalous_module


class Halves(nn.Module):
    """A leaf with two outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, dim=-1)
        return first, second


class Net(nn.Module):
    """Three layers, and a division between the second and the third that no layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.middle = nn.Sequential(nn.SiLU(), nn.Linear(4, 8))
        self.halves = Halves()
        self.last = nn.Linear(4, 4)
        self.divisor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.halves(self.middle(self.first(x)))
        return self.last((a + b) / torch.tensor(self.divisor))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def find(net: Net, x: Tensor | None = None) -> str | None:
    return first_anomalous_module(net, lambda: net(torch.ones(2, 4) if x is None else x))


def test_nothing_is_found_where_nothing_is_wrong(net: Net) -> None:
    assert find(net) is None


def test_a_weight_that_is_nan_is_named(net: Net) -> None:
    with torch.no_grad():
        net.middle[1].get_parameter("bias")[0] = torch.nan

    assert find(net) == "middle.1.bias (Linear)"


def test_an_overflow_is_named_where_it_happens(net: Net) -> None:
    with torch.no_grad():
        net.middle[1].get_parameter("weight").fill_(3e38)

    assert find(net, torch.full((2, 4), 100.0)) == "middle.1 (Linear)"


def test_what_happens_between_layers_is_said_to(net: Net) -> None:
    net.divisor = 0.0

    assert find(net) == "the input of last (Linear)"


def test_a_bad_input_is_not_blamed_on_the_first_layer(net: Net) -> None:
    assert find(net, torch.full((2, 4), torch.nan)) == "the input of first (Linear)"


def test_all_zero_at_the_end_is_found(net: Net) -> None:
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.zero_()

    assert find(net) == "last (Linear)"


def test_zeros_that_something_comes_after_are_not(net: Net) -> None:
    with torch.no_grad():
        net.first.weight.zero_()
        net.first.bias.zero_()

    assert find(net) is None


def test_nothing_stays_behind(net: Net) -> None:
    def fail() -> None:
        net(torch.ones(2, 4))
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        first_anomalous_module(net, fail)
    find(net)

    assert [name for name, module in net.named_modules() if module._forward_hooks] == []
