"""Networks that run beside a backbone and add to its features: when they count, and how strongly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from muybridge.errors import ConfigError


@dataclass(frozen=True)
class Influence:
    """How strongly a network counts, and between which noise levels.

    Attributes:
        strength: factor of its residuals.
        highest: noise level (timestep) of the first step in which it counts, infinite if from the beginning.
        lowest: of the last, minus infinity if to the end.
    """

    strength: float
    highest: float
    lowest: float

    @classmethod
    def during(cls, strength: float, start: float, end: float, timesteps: Tensor) -> Influence:
        """Between two shares of the steps, as diffusers counts them: whole steps inside `[start, end]`.

        Raises:
            ConfigError: shares outside 0 to 1, a strength that is no number, or no step between the shares.
        """
        if not 0 <= start < end <= 1:
            raise ConfigError(f"Influence must start before it ends, within 0 to 1; given {start} to {end}.")
        if not math.isfinite(strength):
            raise ConfigError(f"The strength of a control must be a finite number; given {strength}.")
        count = len(timesteps)
        inside = [i for i in range(count) if i / count >= start and (i + 1) / count <= end]
        if not inside:
            raise ConfigError(f"None of {count} steps lies whole between {start} and {end} of them; widen the range.")
        # Open where it has no bound: a shorter pass of FreeInit may begin and end at other levels than this one.
        highest = math.inf if inside[0] == 0 else float(timesteps[inside[0]])
        lowest = -math.inf if inside[-1] == count - 1 else float(timesteps[inside[-1]])
        return cls(strength, highest, lowest)

    def counts_at(self, level: float) -> bool:
        """Whether it counts in the step at a noise level (timestep)."""
        return self.strength != 0 and self.lowest <= level <= self.highest


@dataclass(frozen=True)
class Residuals:
    """What is added to a U-Net's skips and to its middle, each `[b, c, f, h, w]`."""

    down: list[Tensor]
    mid: Tensor

    def plus(self, other: Residuals | None) -> Residuals:
        """The sum of both."""
        if other is None:
            return self
        return Residuals([a + b for a, b in zip(self.down, other.down, strict=True)], self.mid + other.mid)

    def times(self, factor: float) -> Residuals:
        """All scaled by a number."""
        return self if factor == 1 else Residuals([each * factor for each in self.down], self.mid * factor)


ResidualsOf = Callable[[Tensor, Tensor, Tensor, Tensor], Residuals]
"""(latents, timestep, text states, the condition `[b, c, f, h, w]`) -> what is added to the backbone."""


@dataclass(frozen=True, eq=False)
class ActiveControl:
    """A network beside the backbone, ready to run.

    Attributes:
        condition: what it is shown, `[1, c, f, h, w]`, the same for all videos of a batch.
        influence: when, and how strongly.
        residuals: runs it.
    """

    condition: Tensor
    influence: Influence
    residuals: ResidualsOf
