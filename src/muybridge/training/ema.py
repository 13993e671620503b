"""An exponential moving average of the trainable parameters, which is what gets exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from muybridge.training.shards import is_sharded, like, local_part, shared_out_like


class ExponentialMovingAverage:
    """Averages trainable parameters in float32; the decay grows from 0.1 to its final value over the first steps.

    With a decay of 0 there is none, and the parameters stand for it. Of parameters that are shared out between
    processes, each averages its parts.
    """

    def __init__(self, model: nn.Module, decay: float, device: torch.device | None = None) -> None:
        """Start from the model's present parameters.

        Args:
            model: its trainable parameters are averaged.
            decay: 0 for no average.
            device: where the average lies; by default where the parameters are.
        """
        self.decay = decay
        self.num_updates = 0
        self._device = device
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad} if decay else {}
        self._average = {name: self._moved(p).clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present parameters."""
        self.num_updates += 1
        if not self._average:
            return
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages = list(self._average.values())
        get_ema_multi_avg_fn(decay)(averages, [self._moved(p) for p in self._live.values()], None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Hold the averaged values in the model while the block runs, then put the live ones back."""
        live = {name: local_part(p.detach()).clone() for name, p in self._live.items()}
        self._copy_into_model(self._average)
        try:
            yield
        finally:
            self._copy_into_model(live)

    @torch.no_grad()
    def _copy_into_model(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            local_part(parameter).copy_(values[name])

    def _moved(self, parameter: nn.Parameter) -> Tensor:
        return local_part(parameter.detach()).to(device=self._device, dtype=torch.float32)

    def state_dict(self) -> dict:
        """Average and number of updates, for a checkpoint."""
        average = {name: like(self._live[name].detach(), value) for name, value in self._average.items()}
        return {"num_updates": self.num_updates, "average": average}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint's average, whole or shared out."""
        self.num_updates = state["num_updates"]
        for name, value in self._average.items():
            given = state["average"][name]
            part = given if is_sharded(given) else shared_out_like(self._live[name].detach(), given)
            value.copy_(local_part(part))
