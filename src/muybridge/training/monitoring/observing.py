"""What observers of training see of the trainer, and what they have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from muybridge.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class Update(Protocol):
    """What one group of weights got in the last step."""

    @property
    def gradient_norm(self) -> float:
        """Of its gradient, before anything scales it."""
        ...

    @property
    def update_ratio(self) -> float:
        """Size of the update as a share of the weights' own size."""
        ...

    @property
    def clipped_share(self) -> float:
        """Of the steps until now, those whose gradients were scaled down."""
        ...


class ObservedTrainer(Protocol):
    """A trainer between two steps, with the averaged weights in place."""

    @property
    def method(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def folder(self) -> Path:
        """Of the stage."""
        ...

    @property
    def last_update(self) -> Mapping[str, Update]:
        """By name of the group of weights; empty before the first step."""
        ...


class Observer(Protocol):
    """Looks on at step 0, every `every` steps and at the end; what it returns is logged under its names."""

    every: int

    def observe(self, trainer: ObservedTrainer, step: int) -> dict[str, float]:
        """After `step` steps."""
        ...


def checked_interval(every: int) -> int:
    """Steps between two looks.

    Raises:
        ConfigError: fewer than one.
    """
    if every < 1:
        raise ConfigError(f"Looks are at least one step apart; given every {every} steps.")
    return every
