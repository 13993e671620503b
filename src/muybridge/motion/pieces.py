"""Work in pieces of a bounded number of tokens, so that what lies between two layers is never whole in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

Method = TypeVar("Method", bound=Callable[..., object])

PIECE_TOKENS = 8192
"""Enough rows to keep a matrix product busy; widths of about 1000 make pieces of some tens of megabytes."""


def pieces(count: int, tokens_each: int) -> Iterator[slice]:
    """Slices that cover `range(count)`; each holds at most `PIECE_TOKENS` tokens, where one item has `tokens_each`."""
    size = max(1, PIECE_TOKENS // max(1, tokens_each))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def one_piece(method: Method) -> Method:
    """Mark a method of a network that is called for one piece after the other.

    It runs as it is; plans of memory count it once for all pieces of one shape, as they do with whole modules. So what
    it needs, and what it gives, must follow from its arguments and from the settings of its module.
    """
    method.__dict__["is_one_piece"] = True
    return method
