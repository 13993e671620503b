"""An exponential moving average of the trainable parameters, which is what gets exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ExponentialMovingAverage:
    """Averages trainable parameters in float32; the decay grows from 0.1 to its final value over the first steps."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model's present parameters."""
        self.decay = decay
        self.num_updates = 0
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().float().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present parameters."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages = list(self._average.values())
        get_ema_multi_avg_fn(decay)(averages, [p.detach().float() for p in self._live.values()], None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Hold the averaged values in the model while the block runs, then put the live ones back."""
        live = {name: p.detach().clone() for name, p in self._live.items()}
        self._copy_into_model(self._average)
        try:
            yield
        finally:
            self._copy_into_model(live)

    @torch.no_grad()
    def _copy_into_model(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(values[name])

    def state_dict(self) -> dict:
        """Average and number of updates, for a checkpoint."""
        return {"num_updates": self.num_updates, "average": self._average}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint's average."""
        self.num_updates = state["num_updates"]
        for name, value in self._average.items():
            value.copy_(state["average"][name])
