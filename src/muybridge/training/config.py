"""How long, how fast and where to train: what the trainer is told, and what of it a run may be continued with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from muybridge.errors import ConfigError
from muybridge.training.optimizers import OptimizerSettings
from muybridge.training.schedules import ScheduleSettings
from muybridge.types import SettingsDict

EMADevice = Literal["training", "cpu"]
Recomputation = Literal["none", "blocks", "selective"]
Sharding = Literal["none", "fsdp2", "deepspeed"]

CHANGEABLE_SETTINGS = frozenset(
    {
        "steps",
        "checkpoint_seconds",
        "keep_checkpoints",
        "log_every",
        "debug",
        "debug_steps",
        "trackers",
        "ema_device",
        "sharding",
        "gradient_checkpointing",
    }
)
"""What an interrupted run may be continued with other values of."""
SHARES = ("processes", "accumulate")
"""Settings that may change as long as their product, the batches of a step, stays."""
SCHEDULE_SHORT_FORMS = ("warmup_steps", "decay_from")
"""Settings of a schedule that may stand beside it."""
_HALF_WAY = 0.5
_OPTIMIZER, _SCHEDULE = OptimizerSettings(), ScheduleSettings()


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps.
        learning_rate: peak rate; with muon of the hidden matrices.
        other_learning_rate: peak rate of everything else, with muon.
        optimizer: which one, and its settings.
        schedule: how the rates go over the run.
        accumulate: batches a process and step, whose gradients are averaged.
        max_gradient_norm: gradients are scaled down to it.
        ema_decay: of the exported weights' moving average; 0 for none, and the weights as they are.
        ema_device: where the average lies: where the weights are trained, or in the memory of the CPU.
        mixed_precision: "bf16", "fp16", "no", or "auto": see `settled_precision`.
        gradient_checkpointing: what is computed again in the backward pass instead of kept: nothing, the repeated
            blocks of the networks, or these except for their products of matrices and their attention.
        compile: whether the repeated blocks are compiled.
        sharding: what several processes share out between them: nothing, weights, gradients and the optimizer's state
            with torch's FSDP2, or the latter two with DeepSpeed.
        checkpoint_seconds: a resumable state is written this often.
        keep_checkpoints: how many of them are kept.
        log_every: steps between lines of the log.
        seed: of data and noise.
        trackers: names of those of accelerate that are told the log's values; None for tensorboard if it is installed.
        debug: names of tools that watch the run and write to the folder `debug` in its folder, see `TrainingTools`.
        debug_steps: how many steps they look at, from where the run starts or goes on; the anomaly guard always does.
    """

    steps: int
    learning_rate: float = 2e-3
    other_learning_rate: float = 1.4e-3
    optimizer: OptimizerSettings = _OPTIMIZER
    schedule: ScheduleSettings = _SCHEDULE
    accumulate: int = 1
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.998
    ema_device: EMADevice = "training"
    mixed_precision: str = "auto"
    gradient_checkpointing: Recomputation = "none"
    compile: bool = False
    sharding: Sharding = "none"
    checkpoint_seconds: float = 120.0
    keep_checkpoints: int = 2
    log_every: int = 20
    seed: int = 0
    trackers: tuple[str, ...] | None = None
    debug: tuple[str, ...] = ()
    debug_steps: int = 10

    def check(self) -> None:
        """Find what is wrong before anything is trained.

        Raises:
            ConfigError: a number out of range, or an optimizer that is not installed or not for the schedule.
        """
        for name in ("learning_rate", "other_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"{name} must be above 0, as nothing is learned at 0; given {getattr(self, name)}. A LoRA or a "
                    "motion module usually learns with 1e-4 to 2e-3."
                )
        for name in ("steps", "accumulate", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; given {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be at least 0, for no average, and below 1; given {self.ema_decay}.")
        self.optimizer.check(self.schedule)

    def record(self) -> SettingsDict:
        """The settings as plain values, for a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {"optimizer": self.optimizer.model_dump(mode="json"), "schedule": self.schedule.model_dump(mode="json")}
        return comparable({**values, **plain})


def comparable(recorded: Mapping[str, Any]) -> SettingsDict:
    """Recorded settings of any age in today's form, so that equal ones are equal."""
    values = with_schedule(recorded)
    schedule = values.get("schedule")
    if isinstance(schedule, dict) and schedule.get("name", "plateau") == "plateau":
        ends = schedule.get("decay_from")
        default = ScheduleSettings().model_dump(mode="json")
        values["schedule"] = {**default, **schedule, "decay_from": _HALF_WAY if ends is None else ends}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def with_schedule(values: Mapping[str, Any]) -> SettingsDict:
    """Settings with the short forms of a schedule, `warmup_steps` and `decay_from` beside it, as part of it.

    Raises:
        ConfigError: one of them is given in both places.
    """
    short = {name: values[name] for name in SCHEDULE_SHORT_FORMS if name in values}
    rest = {name: value for name, value in values.items() if name not in SCHEDULE_SHORT_FORMS}
    for name in ("optimizer", "schedule"):
        if isinstance(rest.get(name), str):
            rest[name] = {"name": rest[name]}
    if not short:
        return rest
    given = rest.get("schedule", {})
    given = given.model_dump(exclude_unset=True) if isinstance(given, ScheduleSettings) else given
    if not isinstance(given, Mapping):
        return {**rest, **short}  # wrong anyway, and said by whoever reads it
    if twice := given_twice(values):
        raise ConfigError(f"{twice} is given twice, also in schedule; leave one of the two out.")
    return {**rest, "schedule": {**given, **short}}


def given_twice(values: Mapping[str, Any]) -> str | None:
    """The first short form of a schedule that the schedule itself has too."""
    given = values.get("schedule")
    given = given.model_dump(exclude_unset=True) if isinstance(given, ScheduleSettings) else given
    inside = given if isinstance(given, Mapping) else {}
    return next((name for name in SCHEDULE_SHORT_FORMS if name in values and name in inside), None)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], free: frozenset[str]) -> list[str]:
    """Names of settings that both have and that differ, of those that must not.

    Args:
        before: as they were recorded.
        now: as they are.
        free: what may differ.
    """
    before, now = comparable(before), comparable(now)
    differing = sorted(n for n in (before.keys() & now.keys()) - free if before[n] != now[n])
    kept = [name for name in SHARES if name in before and name in now]
    if len(kept) == len(SHARES) and _batches_of(before) == _batches_of(now):
        return [name for name in differing if name not in SHARES]
    return differing


def _batches_of(settings: Mapping[str, Any]) -> int:
    return settings["processes"] * settings["accumulate"]


def settled_precision(asked: str, began_with: str | None) -> str:
    """What the precision `asked` for means here: "bf16", "fp16" or "no".

    For "auto" that is what the run began with, if it has begun; else bf16 where the device that trains is faster in it.
    """
    if asked != "auto":
        return asked
    if began_with in ("bf16", "fp16", "no"):
        return began_with
    import torch

    from muybridge.processor import fast_half

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "no" if fast_half(device) is None else "bf16"
