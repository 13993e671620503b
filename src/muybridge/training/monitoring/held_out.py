"""The loss at noise levels and noise that stay the same all along, on clips that are trained on and on others.

The loss of a step is of a noise level drawn at random, and says little: from one level to the next it differs by more
than training ever changes it. At fixed ones a change of one per cent can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.data import Batch, BatchSource, on_device
from muybridge.training.methods.denoise import DenoisingSteps
from muybridge.training.monitoring.observing import ObservedTrainer, checked_interval
from muybridge.training.objective.draws import draw_noise
from muybridge.types import SettingsDict

TIMESTEPS = 50, 150, 350, 550, 750, 950
"""Of 1000; scaled to schedules of other lengths."""
MIDDLE = 350, 550, 750
"""Where motion is decided: below them the frames show it already, above them hardly anything shows."""
NOISES = 4

_HELD_OUT, _TRAINING = "held_out_loss", "training_loss"

Losses = Mapping[int, float]
"""By timestep of 1000."""


@runtime_checkable
class HasAdapter(Protocol):
    """A method that can go back to before its training."""

    def without(self) -> AbstractContextManager[None]:
        """While it is entered, the network runs as it was before training."""
        ...


class HeldOutLoss:
    """An observer that measures the loss at fixed noise, one value a noise level, as `held_out_loss/t350` and so on.

    Beside it `training_loss/...` on clips that are trained on, `gap/...`, by how much the first is higher, as a share,
    and at the middle noise levels `adapter_gap/...` and `shuffled_gap/...`, by how much the held-out loss is higher as
    it was before training, and when the frames stand in another order. What is no denoising network has one value of
    each loss, named `all`. Where no clips are held out, all of it is of those that are trained on.
    """

    def __init__(
        self, held_out: BatchSource | None, training: BatchSource, every: int, count: int = 4, noises: int = NOISES
    ) -> None:
        """Measure every so many steps on the first `count` batches of both sources, at `noises` noises each.

        A look runs the network 15 times a batch and noise, the first one 18 times. Captions should not be dropped in
        either source.

        Raises:
            ConfigError: `every`, `count` or `noises` is below 1.
        """
        if min(count, noises) < 1:
            raise ConfigError(f"The held-out loss needs one batch and one noise at least; given {count} and {noises}.")
        self.every = checked_interval(every)
        self._sources = {_TRAINING: training} if held_out is None else {_HELD_OUT: held_out, _TRAINING: training}
        self._main = _TRAINING if held_out is None else _HELD_OUT
        self._count = count
        self._noises = noises
        self._without: Losses | None = None

    def observe(self, trainer: ObservedTrainer, step: int) -> dict[str, float]:
        """All values by their names."""
        method = trainer.method
        was_training = method.training
        method.eval()
        try:
            with torch.no_grad():
                return self._values(method)
        finally:
            method.train(was_training)

    def _values(self, method: nn.Module) -> dict[str, float]:
        if not is_denoising(method):
            values = {name: _plain_loss(method, self._batches(method, name)) for name in self._sources}
            return {f"{name}/all": value for name, value in values.items()}
        losses = {name: self._losses(method, name) for name in self._sources}
        values = {key: value for name, found in losses.items() for key, value in _named(name, found).items()}
        main = losses[self._main]
        if self._main == _HELD_OUT:
            values |= _named("gap", rise(losses[_TRAINING], main))
        if isinstance(method, HasAdapter):
            if self._without is None:  # what it is without stays as it is
                with method.without():
                    self._without = self._losses(method, self._main, MIDDLE)
            values |= _named("adapter_gap", rise(main, self._without))
        shuffled = self._losses(method, self._main, MIDDLE, shuffled=True)
        return values | _named("shuffled_gap", rise(main, shuffled))

    def _batches(self, method: nn.Module, name: str) -> list[Batch]:
        device = next(method.parameters()).device
        batches = map(self._sources[name], range(self._count))
        return [on_device(batch, device) for batch in batches]

    def _losses(
        self, method: nn.Module, name: str, timesteps: Sequence[int] = TIMESTEPS, shuffled: bool = False
    ) -> Losses:
        steps = cast("DenoisingSteps", method)
        measured = [
            fixed_losses(steps, batch, index, timesteps, shuffled, self._noises)
            for index, batch in enumerate(self._batches(method, name))
        ]
        known = [losses for losses in measured if losses]
        return {t: sum(losses[t] for losses in known) / len(known) for t in timesteps} if known else {}


def is_denoising(method: nn.Module) -> bool:
    """Whether a method trains a denoising network, whose loss can be measured at a given noise."""
    return all(hasattr(method, name) for name in ("objective", "encode", "predict"))


def fixed_losses(
    steps: DenoisingSteps,
    batch: Batch,
    index: int,
    timesteps: Sequence[int] = TIMESTEPS,
    shuffled: bool = False,
    noises: int = NOISES,
) -> Losses:
    """Mean squared error of the prediction for a batch at noises that belong to `index`, by noise level.

    It is that error whatever the objective weighs, so that runs can be compared.

    Args:
        steps: of the method.
        batch: on its device.
        index: of the batch.
        timesteps: noise levels.
        shuffled: with the frames in another order, always the same; then nothing comes of a batch of pictures.
        noises: how many.
    """
    latents, told = steps.encode(batch)
    shown = [fixed_noise(steps, latents, index, number) for number in range(noises)]
    if shuffled:
        if latents.ndim < 5 or latents.shape[2] < 2:
            return {}
        order = _shuffling(latents.shape[2]).to(latents.device)
        told = _reordered(told, order)
        latents, shown = latents[:, :, order], [noise[:, :, order] for noise in shown]
    errors = {t: [fixed_error(steps, latents, noise, told, t) for noise in shown] for t in timesteps}
    return {timestep: float(torch.stack(values).mean()) for timestep, values in errors.items()}


def fixed_noise(steps: DenoisingSteps, latents: Tensor, index: int, number: int) -> Tensor:
    """Noise `number` of batch `index`, as the objective draws noise."""
    generator = torch.Generator().manual_seed(7_919 * index + number)
    return draw_noise(steps.objective.settings, latents.shape, generator).to(latents)


def scaled_timestep(steps: DenoisingSteps, timestep: int) -> int:
    """A timestep of 1000 in the method's own schedule."""
    last = int(steps.objective.scheduler.config["num_train_timesteps"])
    return min(last - 1, round(timestep * last / 1000))


def fixed_error(steps: DenoisingSteps, latents: Tensor, noise: Tensor, told: SettingsDict, timestep: int) -> Tensor:
    """Mean squared error of the prediction at one noise level."""
    own = scaled_timestep(steps, timestep)
    drawn = steps.objective.show(latents, noise, torch.full((len(latents),), own, device=latents.device))
    prediction = steps.predict(drawn, told)
    return F.mse_loss(prediction[:, : drawn.target.shape[1]].float(), drawn.target.float())


def rise(low: Losses, high: Losses) -> Losses:
    """By how much the second losses are higher than the first, as a share of these, where both are known."""
    return {timestep: high[timestep] / low[timestep] - 1 for timestep in high if low.get(timestep)}


def _plain_loss(method: nn.Module, batches: Sequence[Batch]) -> float:
    with torch.enable_grad():  # a loss may weigh its terms by their gradients
        losses = [method(batch, torch.Generator().manual_seed(i))["loss"].detach() for i, batch in enumerate(batches)]
    return float(torch.stack(losses).mean())


def _shuffling(count: int) -> Tensor:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    return order.roll(1) if torch.equal(order, torch.arange(count)) else order


def _reordered(told: SettingsDict, order: Tensor) -> SettingsDict:
    """What is told as a video moves with the frames; positions in time stay."""
    return {
        name: value[:, :, order]
        if isinstance(value, Tensor) and value.ndim == 5 and value.shape[2] == len(order)
        else value
        for name, value in told.items()
    }


def _named(name: str, losses: Losses) -> dict[str, float]:
    return {f"{name}/t{timestep}": value for timestep, value in losses.items()}
