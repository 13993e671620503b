"""The training loop: steps, schedule, moving average, log, checkpoints, resume. Devices and processes are accelerate's.

A run is reproducible and resumable because nothing depends on what came before except the saved state: batch and
noise of a step are functions of (seed, step, process).
"""

from __future__ import annotations

import json
import logging
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from muybridge.debug.training_tools import TrainingTools
from muybridge.errors import CheckpointError, ConfigError, OutputError, TrainingError
from muybridge.processor import fast_half
from muybridge.training.data import BatchSource
from muybridge.training.ema import ExponentialMovingAverage
from muybridge.training.muon import Muon, split_parameters
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.stopping import stop_signals
from muybridge.types import SettingsDict

logger = logging.getLogger(__name__)

STATE_FILE = "training_state.pt"
LOG_FILE = "log.jsonl"
DEBUG_FOLDER = "debug"
CHANGEABLE_SETTINGS = frozenset({"steps", "checkpoint_seconds", "log_every", "debug", "debug_steps"})
"""What an interrupted run may be continued with other values of."""


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps.
        learning_rate: peak rate of the hidden matrices (Muon).
        other_learning_rate: peak rate of everything else (AdamW).
        warmup_steps: linear warm-up.
        decay_from: share of the steps after which the rate falls linearly to zero.
        ema_decay: of the exported weights' moving average.
        max_gradient_norm: gradients are scaled down to it.
        checkpoint_seconds: a resumable state is written this often.
        log_every: steps between lines of the log.
        seed: of data and noise.
        mixed_precision: "bf16", "no", or "auto": see `settled_precision`.
        debug: names of tools that watch the run and write to the folder `debug` in its folder, see `TrainingTools`.
        debug_steps: how many steps they look at, from where the run starts or goes on; the anomaly guard always does.
    """

    steps: int
    learning_rate: float = 2e-3
    other_learning_rate: float = 1.4e-3
    warmup_steps: int = 100
    decay_from: float = 0.5
    ema_decay: float = 0.998
    max_gradient_norm: float = 1.0
    checkpoint_seconds: float = 120.0
    log_every: int = 20
    seed: int = 0
    mixed_precision: str = "auto"
    debug: tuple[str, ...] = ()
    debug_steps: int = 10

    def rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step: warm-up, plateau, linear decay."""
        return ScheduleSettings(warmup_steps=self.warmup_steps, decay_from=self.decay_from).factor(step, self.steps)


def settled_precision(asked: str, began_with: str | None) -> str:
    """What the precision `asked` for means here: "bf16" or "no".

    For "auto" that is what the run began with, if it has begun; else bf16 where the device that trains is faster in it.
    """
    if asked != "auto":
        return asked
    if began_with in ("bf16", "no"):
        return began_with
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "no" if fast_half(device) is None else "bf16"


Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, smoothed metrics) after each logged step."""


class Trainer:
    """Trains one method on one source of batches, in a folder of its own."""

    def __init__(self, method: nn.Module, batches: BatchSource, config: TrainerConfig, folder: Path) -> None:
        """Prepare optimizers and, where the folder holds the state of an interrupted run, continue from it.

        Raises:
            ConfigError: nothing in `method` is trainable, the folder's state belongs to other settings, or a tool of
                `config.debug` is unknown or has nothing to look at.
            CheckpointError: the folder's state is damaged.
        """
        state = _read_state(folder / STATE_FILE) if (folder / STATE_FILE).exists() else None
        began_with = None if state is None else state["config"].get("mixed_precision")
        config = replace(config, mixed_precision=settled_precision(config.mixed_precision, began_with))
        self.config = config
        self.folder = folder
        self.method = method
        self.step = 0
        self._batches = batches
        self._seconds_before = 0.0
        matrices, others = split_parameters(method)
        if not matrices and not others:
            raise ConfigError("Nothing to train: every parameter of the method is frozen.")
        # accelerate keeps one precision for the whole program, so each trainer casts by itself.
        self.accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())
        self._optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            self._optimizers.append(Muon(matrices, lr=config.learning_rate))
        if others:
            self._optimizers.append(
                torch.optim.AdamW(others, lr=config.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
            )
        self._peak_rates = [group["lr"] for optimizer in self._optimizers for group in optimizer.param_groups]
        self.method.to(self.accelerator.device)
        self._trainable = [*matrices, *others]
        # One process' share of the work is like another's, and they would write the same files.
        tools = config.debug if self.is_main else ()
        self._tools = TrainingTools(tools, method, folder / DEBUG_FOLDER, config.debug_steps)
        self.ema = ExponentialMovingAverage(method, config.ema_decay)
        if state is not None:
            self._resume(state)
        self._model = self.accelerator.prepare_model(method)

    def fit(self, progress: Progress | None = None) -> None:
        """Train to the last step. Ctrl-C and SIGTERM let the present step end; then the same call continues from there.

        Raises:
            KeyboardInterrupt: after such a signal, or from `progress`; the state is saved.
            TrainingError: the loss became NaN or infinite; the last saved state is kept.
            NonFiniteError: likewise, found by the guard of `config.debug` in the layer where it happened.
            OutputError: the state cannot be written; the one before is kept.
        """
        _make_folder(self.folder)
        started = saved = time.monotonic() - self._seconds_before
        metrics: dict[str, float] = {}
        with stop_signals() as stop, self._tools:
            try:
                while self.step < self.config.steps:
                    self._tools.begin_step(self.step)
                    values = self._train_step()
                    for name, value in values.items():
                        metrics[name] = metrics.get(name, value) * 0.95 + value * 0.05
                    if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                        self._log(metrics, time.monotonic() - started)
                        if progress is not None:
                            progress(self.step, self.config.steps, metrics)
                    if self._in_any_process(stop.requested):
                        raise KeyboardInterrupt
                    if time.monotonic() - saved > self.config.checkpoint_seconds:
                        self._save(time.monotonic() - started)
                        saved = time.monotonic()
            except KeyboardInterrupt:
                self._save(time.monotonic() - started)
                raise
            self._save(time.monotonic() - started)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.accelerator.is_main_process

    def _in_any_process(self, flag: bool) -> bool:
        # All must stop after the same step: one that went on alone would wait for the others for ever.
        if self.accelerator.num_processes == 1:
            return flag
        count: Any = self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum")
        return bool(count > 0)

    def _train_step(self) -> dict[str, float]:
        config, accelerator = self.config, self.accelerator
        index = self.step * accelerator.num_processes + accelerator.process_index
        batch = {name: value.to(accelerator.device) for name, value in self._batches(index).items()}
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + index)
        factor = config.rate_factor(self.step)
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        for group, peak in zip(groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor
        self._model.train()
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
            output = self._model(batch, generator)
        accelerator.backward(output["loss"])
        norm = nn.utils.clip_grad_norm_(self._trainable, config.max_gradient_norm)
        values = {name: float(value.detach()) for name, value in output.items()} | {"gradient_norm": float(norm)}
        if not math.isfinite(values["loss"]) or not math.isfinite(values["gradient_norm"]):
            raise TrainingError(
                f"Step {self.step}: loss {values['loss']}, gradient norm {values['gradient_norm']}. "
                f"The state saved before it is kept in {self.folder}. Lower the learning rate, in another folder."
            )
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        self.step += 1
        return values

    def _log(self, metrics: dict[str, float], seconds: float) -> None:
        if self.is_main:
            line = {"step": self.step, "seconds": round(seconds, 1)}
            line |= {name: round(value, 5) for name, value in metrics.items()}
            with (self.folder / LOG_FILE).open("a") as log:
                log.write(json.dumps(line) + "\n")

    def _save(self, seconds: float) -> None:
        if not self.is_main:
            return
        state = {
            "step": self.step,
            "seconds": seconds,
            "config": asdict(self.config),
            "parameters": {n: p.detach().cpu() for n, p in self.method.named_parameters() if p.requires_grad},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "ema": self.ema.state_dict(),
        }
        path = self.folder / STATE_FILE
        temporary = path.with_name(STATE_FILE + ".part")
        try:
            torch.save(state, temporary)
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk may be full"
            raise OutputError(
                f"{path} cannot be written ({reason}). Free some space; the same call continues."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _resume(self, state: SettingsDict) -> None:
        path = self.folder / STATE_FILE
        settings = asdict(self.config)
        changed = sorted(k for k in settings.keys() - CHANGEABLE_SETTINGS if state["config"].get(k) != settings[k])
        if changed:
            raise ConfigError(
                f"{path} was written with other settings ({', '.join(changed)}). Choose another output folder to "
                "start anew, or the old settings to continue."
            )
        live = {name: p for name, p in self.method.named_parameters() if p.requires_grad}
        if {n: p.shape for n, p in live.items()} != {n: p.shape for n, p in state["parameters"].items()}:
            raise ConfigError(f"{path} belongs to another model. Choose another output folder.")
        with torch.no_grad():
            for name, parameter in live.items():
                parameter.copy_(state["parameters"][name])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        self._seconds_before = state["seconds"]
        if self.is_main:
            logger.info("continuing %s from step %d", self.folder, self.step)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made ({error.strerror}). Choose another one.") from error


def _read_state(path: Path) -> SettingsDict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.keys() >= {"step", "seconds", "config", "parameters", "optimizers", "ema"}:
            return state
        reason = "parts are missing"
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged, or something else"
    raise CheckpointError(
        f"{path} is not the state of a training run ({reason}). Choose another output folder, or delete the file to "
        "start anew."
    )
