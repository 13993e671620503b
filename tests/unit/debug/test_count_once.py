"""Memory counted from one call of each kind is the memory counted from all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from muybridge.debug.count_once import CountOnce
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.motion.pieces import one_piece


class Block(nn.Module):
    """Counts how often it runs; widens on the way."""

    def __init__(self, width: int, factor: int = 4) -> None:
        super().__init__()
        self.factor = factor
        self.inner = nn.Sequential(nn.Linear(width, factor * width), nn.Linear(factor * width, width))
        self.runs = [0]

    def forward(self, x: Tensor) -> Tensor:
        self.runs[0] += 1
        return x + self.inner(x)


class Popping(nn.Module):
    """Uses up a list, as the up path of a U-Net does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8))

    def forward(self, x: Tensor, kept: list[Tensor]) -> Tensor:
        return self.inner(x + kept.pop())


class View(nn.Module):
    """Gives back what it got, in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)[1:]


class Pieces(nn.Module):
    """Goes through its input a row at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8))
        self.runs = [0]

    def forward(self, x: Tensor) -> Tensor:
        for row in x.split(1):
            row.add_(self.changed(row))
        return x

    @one_piece
    def changed(self, row: Tensor) -> Tensor:
        self.runs[0] += 1
        return self.inner(row) + self.inner(2 * row)


def counted(networks: Sequence[nn.Module], run: Callable[[], Any], once: bool) -> tuple[int, int]:
    with torch.no_grad(), TensorMemory() as memory, CountOnce(networks, memory) if once else nullcontext():
        result = run()
        live = memory.live_bytes
    del result
    return memory.peak_bytes, live


@pytest.fixture(params=["meta", "fake"], autouse=True)
def _without_numbers(request: pytest.FixtureRequest) -> Any:
    with FakeTensorMode() if request.param == "fake" else torch.device("meta"):
        yield


def same(networks: Sequence[nn.Module], run: Callable[[], Any]) -> tuple[int, int]:
    found = counted(networks, run, once=True)
    assert found == counted(networks, run, once=False)
    return found


def test_one_of_each_kind_is_run() -> None:
    blocks = nn.ModuleList([Block(8), Block(8), Block(8, factor=2), Block(8)])
    x = torch.empty(5, 8)

    def run() -> Tensor:
        y = x
        for block in blocks:
            y = block(y)
        return y

    counted([blocks], run, once=True)

    assert [block.runs for block in blocks] == [[1], [0], [1], [0]]
    assert same([blocks], run)[0] > 5 * 8 * 4 * 4
    assert "forward" not in vars(blocks[0])


def test_another_shape_is_another_kind() -> None:
    block = Block(8)
    counted([block], lambda: [block(torch.empty(n, 8)) for n in (3, 4, 3)], once=True)
    assert block.runs == [2]


def test_what_stays_is_counted_as_often_as_it_stays() -> None:
    block = Block(8)
    _, live = same([block], lambda: [block(torch.empty(6, 8)) for _ in range(5)])
    assert live == 5 * 6 * 8 * 4


def test_a_view_takes_nothing() -> None:
    view = View()

    def run() -> list[Tensor]:
        xs = [torch.empty(6, 8) for _ in range(4)]
        return [view(x) for x in xs]

    assert same([view], run) == (4 * 6 * 8 * 4, 4 * 6 * 8 * 4)


def test_a_list_is_used_up_every_time() -> None:
    popping = Popping()

    def run() -> Tensor:
        kept = [torch.empty(4, 8) for _ in range(3)]
        x = torch.empty(4, 8)
        while kept:
            x = popping(x, kept)
        return x

    same([popping], run)


def test_one_piece_of_each_shape_is_run() -> None:
    pieces = Pieces()
    counted([pieces], lambda: pieces(torch.empty(7, 8)), once=True)
    assert pieces.runs == [1]
    assert "changed" not in vars(pieces)
    same([pieces], lambda: pieces(torch.empty(7, 8)))
