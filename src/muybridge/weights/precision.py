"""Weights in the precision they are wanted in, converted while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Precision: TypeAlias = torch.dtype | Callable[[Mapping[str, Tensor]], Mapping[str, torch.dtype]] | None
"""Of all weights, or by a rule that is shown what a file holds and names the keys to convert; None is as stored."""

_AT_ONCE = 64 * 2**20


def asked(state: Mapping[str, Tensor], precision: Precision) -> Mapping[str, torch.dtype]:
    """The precision of every key that has one asked for, whole numbers included: scales make weights of some."""
    if precision is None:
        return {}
    return dict.fromkeys(state, precision) if isinstance(precision, torch.dtype) else precision(state)


def wanted(state: Mapping[str, Tensor], precision: Precision) -> dict[str, torch.dtype]:
    """The precision of every key that has one asked for; whole numbers are left as they are."""
    return {key: dtype for key, dtype in asked(state, precision).items() if state[key].is_floating_point()}


def convert_(
    state: dict[str, Tensor],
    wishes: Mapping[str, torch.dtype],
    again: Callable[[], Mapping[str, Tensor]] | None = None,
    copy: bool = False,
) -> None:
    """Convert the tensors of a state dictionary in place, so that no two copies of the whole are ever there.

    Args:
        state: what a file holds; nobody else may have its tensors.
        wishes: precisions by key.
        again: reads the file again, for one that is mapped into memory: pages of it that were looked at stay there as
            long as anybody has a tensor of that mapping, so that converting a whole file would keep all of it.
        copy: whether tensors that have their precision already are copied, out of the mapping.
    """
    changing = [key for key in wishes if key in state and (copy or state[key].dtype != wishes[key])]
    if again is None:
        for key in changing:
            state[key] = state[key].to(wishes[key])
        return
    groups = list(_groups(changing, state))
    gone = torch.empty(0)
    for key in changing:
        state[key] = gone  # keeps its place in the order
    for group in groups:
        mapped = again()
        for key in group:
            state[key] = mapped[key].to(wishes[key], copy=copy)
        del mapped


def _groups(keys: Sequence[str], state: Mapping[str, Tensor]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for key in keys:
        group.append(key)
        size += state[key].nbytes
        if size >= _AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
