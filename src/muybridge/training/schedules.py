"""How the learning rate goes over a run: a function of the step and nothing else, so that resuming is exact."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from muybridge.training.settings import Settings

ScheduleName = Literal["plateau", "constant", "linear", "cosine"]


class ScheduleSettings(Settings):
    """A linear warm-up to the peak rate, and what follows it."""

    name: ScheduleName = "plateau"
    """constant stays at the peak; linear and cosine fall to zero from the end of the warm-up on; plateau stays at the
    peak and then falls linearly to zero."""
    warmup_steps: int = Field(default=100, ge=0)
    decay_from: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps after which a plateau ends, 0.5 if not given."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.decay_from is not None and self.name != "plateau":
            raise ValueError(f"decay_from is where a plateau ends; given for the schedule {self.name}. Leave it out")
        return self

    @property
    def falls(self) -> bool:
        """Whether the rate falls towards the end."""
        return self.name in ("linear", "cosine") or (self.name == "plateau" and self.decay_from != 1)

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak rate in step `step` of `steps`, counted from 0."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.name == "plateau":
            return warmup * self._plateau(step, steps)
        if self.name == "constant" or step < self.warmup_steps:
            return warmup
        left = max(0.0, (steps - step) / max(1, steps - self.warmup_steps))
        return left if self.name == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)

    def _plateau(self, step: int, steps: int) -> float:
        tail = steps * (1 - (0.5 if self.decay_from is None else self.decay_from))
        return 1.0 if tail <= 0 else min(1.0, (steps - step) / tail)
