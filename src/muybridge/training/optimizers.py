"""Optimizers as settings: ours, torch's, and those of libraries that are imported where they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from muybridge.errors import ConfigError
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.settings import Settings

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from muybridge.types import SettingsDict

OptimizerName = Literal["muon", "adamw", "adamw8bit", "prodigy", "schedule-free"]


@dataclass(frozen=True)
class _Library:
    """Where an optimizer comes from that does not ship here.

    Attributes:
        package: to install.
        module: to import.
        cls: of the module.
        arguments: what it is given besides the settings.
    """

    package: str
    module: str
    cls: str
    arguments: SettingsDict

    def load(self, name: str) -> Callable[..., Optimizer]:
        """Its class.

        Raises:
            ConfigError: the library is not installed.
        """
        from muybridge.runtime.quantization import quietly

        try:
            with quietly():
                return getattr(importlib.import_module(self.module), self.cls)
        except ImportError as error:
            raise ConfigError(
                f"The optimizer {name} needs {self.package}: pip install 'muybridge[optimizers]'. Without it there "
                "are muon and adamw."
            ) from error


_LIBRARIES = {
    "adamw8bit": _Library("torchao", "torchao.optim", "AdamW8bit", {}),
    # The rate that it estimates must not take the small steps of a warm-up for a sign of where to go.
    "prodigy": _Library("prodigyopt", "prodigyopt", "Prodigy", {"safeguard_warmup": True, "use_bias_correction": True}),
    "schedule-free": _Library("schedulefree", "schedulefree", "AdamWScheduleFree", {}),
}
_USUAL_DECAY = {"adamw": 0.01, "adamw8bit": 0.01}
_PRODIGY_RATES = 0.1, 10.0


class OptimizerSettings(Settings):
    """Which optimizer, and its settings besides the learning rate; what is not given is as usual for it.

    muon is momentum with orthogonalised updates for hidden matrices and AdamW for the rest. adamw8bit keeps AdamW's
    state in a quarter of the memory; it compiles its step, which needs a C++ compiler where a CPU trains. prodigy finds
    the learning rate by itself. schedule-free is AdamW that needs no falling rate, as it averages the weights.
    """

    name: OptimizerName = "muon"
    betas: tuple[float, float] | None = None
    """Of AdamW and its kin: (0.9, 0.999), and (0.9, 0.95) beside Muon."""
    weight_decay: float | None = Field(default=None, ge=0)
    """0.01 for adamw and adamw8bit, else 0."""
    epsilon: float = Field(default=1e-8, gt=0)
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Of muon, 0.95."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1; given {list(self.betas)}")
        if self.momentum is not None and self.name != "muon":
            raise ValueError(f"momentum is muon's; {self.name} has betas. Leave it out")
        return self

    @property
    def has_other_rate(self) -> bool:
        """Whether what is no hidden matrix has a learning rate of its own."""
        return self.name == "muon"

    def check(self, schedule: ScheduleSettings | None = None) -> None:
        """Find what is wrong before anything is trained.

        It also imports what reading a saved state of the optimizer needs.

        Raises:
            ConfigError: the library is not installed, or the schedule is not for the optimizer.
        """
        if self.name in _LIBRARIES:
            _LIBRARIES[self.name].load(self.name)
        if self.name == "schedule-free" and schedule is not None and schedule.falls:
            raise ConfigError(
                f"schedule-free averages the weights in place of a falling rate; given the schedule {schedule.name}. "
                "Use constant, with a warm-up."
            )


class TrainingOptimizer:
    """All that changes the parameters of a method in a step, as one."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        """The peak rates are those that the optimizers have now."""
        self.optimizers = list(optimizers)
        self.groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.peak_rates = [group["lr"] for group in self.groups]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained, in the order that it is updated in."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def set_rate(self, factor: float) -> None:
        """Set every rate to `factor` of its peak."""
        for group, peak in zip(self.groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor

    def step(self) -> None:
        """Update the parameters and drop their gradients."""
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While the block runs, parameters are those to evaluate or export, which schedule-free trains beside others.

        It puts them back to within rounding, so a run that is to be reproduced must do so at the same steps.
        """
        switched: list[Any] = [optimizer for optimizer in self.optimizers if hasattr(optimizer, "eval")]
        for optimizer in switched:
            optimizer.eval()
        try:
            yield
        finally:
            for optimizer in switched:
                optimizer.train()

    def state_dict(self) -> list[SettingsDict]:
        """For a checkpoint."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: Sequence[SettingsDict]) -> None:
        """Go on from a checkpoint of the same settings and parameters."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        # Loading replaces the groups.
        self.groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]


def make_optimizer(
    settings: OptimizerSettings, method: nn.Module, learning_rate: float, other_learning_rate: float
) -> TrainingOptimizer:
    """The optimizer of everything in `method` that is trainable.

    Args:
        settings: of the optimizer.
        method: must be on the device that it is trained on.
        learning_rate: the peak rate; for prodigy a factor of what it finds. A method with `rate_factors`, shares of the
            rates by the beginning of the parameters' names, has rates of its own for these parameters.
        other_learning_rate: beside muon, of what is no hidden matrix; the others do not look at it.

    Raises:
        ConfigError: nothing is trainable, the library is not installed, or rates that prodigy cannot begin with.
    """
    from muybridge.training.muon import split_parameters

    matrices, others = split_parameters(method)
    if not matrices and not others:
        raise ConfigError("Nothing to train: every parameter of the method is frozen.")
    factors = _factors(method)
    if settings.name == "muon":
        rates = (learning_rate, other_learning_rate)
        return TrainingOptimizer(_muon(settings, matrices, others, rates, factors))
    if settings.name == "prodigy" and factors:
        raise ConfigError("prodigy finds one learning rate for all; leave the rates of parts out, or take adamw.")
    low, high = _PRODIGY_RATES
    if settings.name == "prodigy" and not low <= learning_rate <= high:
        raise ConfigError(
            f"prodigy finds the learning rate, and learning_rate is a factor of it, from {low} to {high:.0f}, usually "
            f"1; given {learning_rate}."
        )
    trainable = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = _class_of(settings.name)(
        _grouped(trainable, learning_rate, factors),
        lr=learning_rate,
        betas=settings.betas or (0.9, 0.999),
        eps=settings.epsilon,
        weight_decay=_decay(settings),
        **(_LIBRARIES[settings.name].arguments if settings.name in _LIBRARIES else {}),
    )
    if hasattr(optimizer, "train"):
        optimizer.train()  # type: ignore[operator]
    return TrainingOptimizer([optimizer])


def _muon(
    settings: OptimizerSettings,
    matrices: list[nn.Parameter],
    others: list[nn.Parameter],
    rates: tuple[float, float],
    factors: Mapping[int, float],
) -> list[Optimizer]:
    from torch.optim import AdamW

    from muybridge.training.muon import Muon

    momentum = 0.95 if settings.momentum is None else settings.momentum
    optimizers: list[Optimizer] = []
    if matrices:
        grouped = _grouped(matrices, rates[0], factors)
        optimizers.append(Muon(grouped, lr=rates[0], momentum=momentum, weight_decay=_decay(settings)))
    if others:
        betas = settings.betas or (0.9, 0.95)
        grouped = _grouped(others, rates[1], factors)
        decay = _decay(settings)
        optimizers.append(AdamW(grouped, lr=rates[1], betas=betas, eps=settings.epsilon, weight_decay=decay))
    return optimizers


def _factors(method: nn.Module) -> dict[int, float]:
    """Shares of the rates by the identity of parameters, of those that have one."""
    wanted: Mapping[str, float] = getattr(method, "rate_factors", {})
    return {
        id(parameter): factor
        for name, parameter in method.named_parameters()
        for prefix, factor in wanted.items()
        if name.startswith(prefix) and parameter.requires_grad
    }


def _grouped(
    parameters: list[nn.Parameter], rate: float, factors: Mapping[int, float]
) -> list[nn.Parameter] | list[SettingsDict]:
    """Parameters by their rate; as they are where it is one for all."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
    if groups.keys() == {1.0}:
        return parameters
    return [{"params": group, "lr": rate * factor} for factor, group in groups.items()]


def _decay(settings: OptimizerSettings) -> float:
    return _USUAL_DECAY.get(settings.name, 0.0) if settings.weight_decay is None else settings.weight_decay


def _class_of(name: str) -> Callable[..., Optimizer]:
    if name in _LIBRARIES:
        return _LIBRARIES[name].load(name)
    from torch.optim import AdamW

    return AdamW
