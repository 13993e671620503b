"""The one denoising loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from muybridge.errors import NonFiniteError
from muybridge.sampling.schedulers import Scheduler


class Denoiser(Protocol):
    """A network and everything wrapped around it: guidance, windows, caches."""

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Predict noise or velocity for `latents [b, c, f, h, w]`."""
        ...


@dataclass(frozen=True)
class StepReport:
    """What a step left behind.

    Attributes:
        index: of the step, from 0.
        timestep: its noise level, 0..999.
        latents: after the step, `[b, c, f, h, w]`.
    """

    index: int
    timestep: Tensor
    latents: Tensor


OnStep = Callable[[StepReport], Tensor | None]
"""Called after each step; what it returns replaces the latents. Raise `StopIteration` to end early."""
Diagnose = Callable[[Tensor, Tensor], str]
"""(latents, timestep) -> which layer of the network first goes wrong on them."""


def denoise(
    denoiser: Denoiser,
    scheduler: Scheduler,
    latents: Tensor,
    timesteps: Tensor,
    on_step: OnStep | None = None,
    step_options: Mapping[str, Any] | None = None,
    diagnose: Diagnose | None = None,
) -> Tensor:
    """Run a scheduler's steps.

    Values are watched without waiting for the device: whether a step went wrong is known at once on the CPU, and at
    the end on other devices.

    Args:
        denoiser: what to call each step.
        scheduler: with its timesteps already set.
        latents: `[b, c, f, h, w]`, already scaled to the scheduler's first noise level.
        timesteps: those of the scheduler still to run.
        on_step: called after every step.
        step_options: further arguments of `scheduler.step`, such as `eta` or `generator`.
        diagnose: finds the layer where values first went wrong, for the error message.

    Raises:
        NonFiniteError: predictions or latents became NaN, infinite or all zero; names step and layer.
    """
    watch = _Watch(diagnose)
    for index, timestep in enumerate(timesteps):
        model_input = scheduler.scale_model_input(latents, timestep)
        prediction = denoiser(model_input, timestep)
        latents = scheduler.step(prediction, timestep, latents, **(step_options or {}), return_dict=False)[0]
        watch.record(index, timestep, model_input, prediction, latents)
        if on_step is not None:
            try:
                replaced = on_step(StepReport(index, timestep, latents))
            except StopIteration:
                break
            latents = latents if replaced is None else replaced
    watch.check()
    return latents


class _Watch:
    """Collects one flag a step, looking at it at once only where that costs no wait."""

    def __init__(self, diagnose: Diagnose | None) -> None:
        self._diagnose = diagnose
        self._records: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def record(self, index: int, timestep: Tensor, model_input: Tensor, prediction: Tensor, latents: Tensor) -> None:
        spread = prediction.detach().abs().amax() + latents.detach().abs().amax()
        healthy = torch.isfinite(spread) & (prediction.detach().abs().amax() > 0)
        self._records.append((index, timestep, model_input, healthy))
        if latents.device.type == "cpu":
            self.check()
            self._records.clear()

    def check(self) -> None:
        for index, timestep, model_input, healthy in self._records:
            if not bool(healthy):
                where = self._diagnose(model_input, timestep) if self._diagnose is not None else "the network"
                raise NonFiniteError(
                    f"Step {index + 1} (timestep {float(timestep):g}) gave NaN, infinite or all-zero values, first in "
                    f"{where}. Try float32 instead of half precision, or check the weights with 'muybridge inspect'."
                )
