"""How large the updates of a step are, by group of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from operator import attrgetter

import torch
from torch import Tensor, nn

from muybridge.training.shards import any_sharded, local_part, sum_over_processes


@dataclass(frozen=True)
class UpdateSize:
    """How much a group of weights was changed by a step.

    Attributes:
        gradient_norm: of all its gradients together, before they are clipped.
        update_ratio: norm of the change as a share of the norm of the weights; 0 where nothing changed.
        clipped_share: of the steps until now, the share whose gradients, of all groups together, were clipped.
    """

    gradient_norm: float
    update_ratio: float
    clipped_share: float


class UpdateWatch:
    """Gradients and weights before an update, to be compared with the weights after it."""

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        gradient_of: Callable[[nn.Parameter], Tensor | None] = attrgetter("grad"),
    ) -> None:
        """Look at gradients and weights as they are now.

        Groups are the first two parts of the names, after what all names begin with.
        """
        names = [name.split(".") for name in named]
        shared = next(i for i in count() if len({tuple(each[: i + 1]) for each in names}) > 1 or i == len(names[0]))
        self._groups: dict[str, list[nn.Parameter]] = {}
        for parts, parameter in zip(names, named.values(), strict=True):
            group = parts[shared:-1][:2] or parts[-2:]
            self._groups.setdefault(".".join(group), []).append(parameter)
        self._sharded = any_sharded(list(named.values()))
        with torch.no_grad():
            self._before = {id(p): local_part(p.detach()).clone() for p in named.values()}
            self._gradients = self._sums(lambda p: None if (g := gradient_of(p)) is None else local_part(g))

    @torch.no_grad()
    def sizes(self, clipped_share: float) -> dict[str, UpdateSize]:
        """How large the update was that was made since."""
        changes = self._sums(lambda p: local_part(p.detach()) - self._before[id(p)])
        weights = self._sums(lambda p: self._before[id(p)])
        rows = torch.stack([self._gradients, changes, weights]).sqrt().T.tolist()
        return {
            group: UpdateSize(gradient, _ratio(change, weight), clipped_share)
            for group, (gradient, change, weight) in zip(self._groups, rows, strict=True)
        }

    def _sums(self, of: Callable[[nn.Parameter], Tensor | None]) -> Tensor:
        sums = []
        for parameters in self._groups.values():
            values = [value for p in parameters if (value := of(p)) is not None]
            squares = [value.float().square().sum().double() for value in values]
            sums.append(torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64))
        device = next(iter(self._before.values())).device
        return sum_over_processes(torch.stack([each.to(device) for each in sums]), self._sharded)


def _ratio(change: float, weight: float) -> float:
    if weight:
        return change / weight
    return float("inf") if change else 0.0
