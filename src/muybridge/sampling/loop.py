"""The one denoising loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from muybridge.errors import NonFiniteError
from muybridge.sampling.estimate import denoised_estimate
from muybridge.sampling.schedulers import Scheduler
from muybridge.types import SettingsView


class Denoiser(Protocol):
    """A network and everything wrapped around it: guidance, windows, caches."""

    def __call__(self, latents: Tensor, timestep: Tensor, /) -> Tensor:
        """Predict noise or velocity for `latents [b, c, f, h, w]`."""
        ...


@dataclass(frozen=True)
class StepReport:
    """What a step left behind.

    Attributes:
        index: of the step, from 0.
        timestep: its noise level, 0..999, on the device of the scheduler's timesteps.
        latents: after the step, `[b, c, f, h, w]`.
        denoised: gives what the step takes the finished latents for, in float32; costs nothing until it is called.
    """

    index: int
    timestep: Tensor
    latents: Tensor
    denoised: Callable[[], Tensor]


class StopSampling(Exception):  # noqa: N818  # no error: it asks for an early end
    """Raised by what is called after a step: no more steps. `latents`, if given, replace those of the last one."""

    def __init__(self, latents: Tensor | None = None) -> None:
        """Without latents, those of the step stay."""
        super().__init__()
        self.latents = latents


OnStep = Callable[[StepReport], Tensor | None]
"""Called after each step; what it returns replaces the latents. `raise StopSampling(replaced_or_None)` ends early."""
Diagnose = Callable[[Tensor, Tensor], str]
"""(latents, timestep) -> which layer of the network first goes wrong on them."""


def denoise(
    denoiser: Denoiser,
    scheduler: Scheduler,
    latents: Tensor,
    timesteps: Tensor,
    on_step: OnStep | None = None,
    step_options: SettingsView | None = None,
    diagnose: Diagnose | None = None,
    before_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Run a scheduler's steps.

    Values are watched without waiting for the device: whether a step went wrong is known at once on the CPU, and at
    the end on other devices.

    Args:
        denoiser: what to call each step.
        scheduler: with its timesteps already set.
        latents: `[b, c, f, h, w]`, already scaled to the scheduler's first noise level.
        timesteps: those of the scheduler still to run. Keep them on the CPU, where the scheduler reads them without
            waiting for the device; the denoiser gets a copy on the device of the latents.
        on_step: called after every step.
        step_options: further arguments of `scheduler.step`, such as `eta` or `generator`.
        diagnose: finds the layer where values first went wrong, for the error message.
        before_step: told the index of each step before it, for wrappers that change from step to step, as
            `ContextWindows.begin_step`.

    Raises:
        NonFiniteError: a prediction was NaN, infinite or all zero, or latents were NaN or infinite; names step and
            layer.
    """
    on_device = timesteps.to(latents.device)
    watch = _Watch(on_device, latents, diagnose)
    for index, timestep in enumerate(timesteps):
        if before_step is not None:
            before_step(index)
        model_input = scheduler.scale_model_input(latents, timestep)
        prediction = denoiser(model_input, on_device[index])
        latents = scheduler.step(prediction, timestep, latents, **(step_options or {}), return_dict=False)[0]
        watch.record(model_input, prediction, latents)
        if on_step is not None:
            try:
                denoised = partial(denoised_estimate, scheduler, timestep, model_input, prediction)
                replaced = on_step(StepReport(index, timestep, latents, denoised))
            except StopSampling as stop:
                latents = latents if stop.latents is None else stop.latents
                break
            latents = latents if replaced is None else replaced
    watch.check()
    return latents


class _Watch:
    """Knows on the device how many steps went well, and what went into the first that did not."""

    def __init__(self, timesteps: Tensor, latents: Tensor, diagnose: Diagnose | None) -> None:
        self._timesteps = timesteps
        self._diagnose = diagnose
        self._input = latents
        self._healthy = torch.ones((), dtype=torch.bool, device=latents.device)
        self._num_healthy = torch.zeros((), dtype=torch.int64, device=latents.device)

    def record(self, model_input: Tensor, prediction: Tensor, latents: Tensor) -> None:
        self._input = torch.where(self._healthy, model_input.detach(), self._input)
        largest = prediction.detach().abs().amax()
        finite = torch.isfinite(largest) & torch.isfinite(latents.detach().abs().amax())
        self._healthy = self._healthy & finite & (largest > 0)
        self._num_healthy += self._healthy
        if latents.device.type == "cpu":
            self.check()

    def check(self) -> None:
        if bool(self._healthy):
            return
        index = int(self._num_healthy)
        timestep = self._timesteps[index]
        where = self._diagnose(self._input, timestep) if self._diagnose is not None else "the network"
        raise NonFiniteError(
            f"Step {index + 1} (timestep {float(timestep):g}) gave NaN, infinite or all-zero values, first in {where}. "
            "Try float32 instead of half precision, or check the weights with 'muybridge inspect'."
        )
