"""The training loop: steps, schedule, moving average, log, checkpoints, resume. Devices and processes are accelerate's.

A run is reproducible and resumable because nothing depends on what came before except the saved state: batch and
noise of a step are functions of (seed, step, process).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from muybridge.debug.anomaly_guard import AnomalyGuard
from muybridge.debug.training_tools import TrainingTools
from muybridge.errors import CheckpointError, ConfigError, NonFiniteError, OutputError, TrainingError
from muybridge.files.folder_lock import locked_folder
from muybridge.training.checkpoints import STATE_FILE, BrokenCheckpointError, Checkpoint, Checkpoints
from muybridge.training.config import CHANGEABLE_SETTINGS, TrainerConfig, changed_settings, settled_precision
from muybridge.training.data import Batch, BatchSource, on_device
from muybridge.training.ema import ExponentialMovingAverage
from muybridge.training.optimizers import make_optimizer
from muybridge.training.origin import Origin
from muybridge.training.placement import make_accelerator
from muybridge.training.run_log import RunLog
from muybridge.training.sharing import check_sharding, place
from muybridge.training.state import WRITING_ERRORS, TrainingState, read_tensors
from muybridge.training.stopping import StopRequest, stop_signals
from muybridge.training.trackers import chosen_trackers, finish_trackers, start_trackers
from muybridge.training.updates import UpdateSize, UpdateWatch
from muybridge.types import SettingsDict
from muybridge.version import __version__

logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
DEBUG_FOLDER = "debug"
_SMOOTHING = 0.95
_SMALLEST_SCALE = 1.0
_PARTS_BEFORE = {"step", "seconds", "config", "parameters", "optimizers", "ema"}

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, smoothed metrics) after each logged step."""


class Observer(Protocol):
    """Called before the first step, every so many steps and at the end, in the main process alone.

    The method holds the averaged weights then, and is in evaluation mode; no gradients are recorded. An observer that
    also has `wants_updates = True` finds the size of the update of the same step in `trainer.last_update`.
    """

    every: int

    def observe(self, trainer: Trainer, step: int) -> dict[str, float]:
        """Values for the log, by name."""
        ...


@dataclass
class _Begun:
    """What of a checkpoint is known before the networks are ready to take their part of it."""

    settings: SettingsDict
    facts: SettingsDict
    take: Callable[[TrainingState], None]


@dataclass
class _Progress:
    """What a run has behind it, as checkpoints keep it."""

    step: int = 0
    seconds: float = 0.0
    clipped: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains one method on one source of batches, in a folder of its own.

    Attributes:
        method: what is trained. Where weights are shared out between processes it holds them only in `evaluated`.
        step: steps done.
        last_update: how large the update was that an observer wanted to know of, by group of weights.
    """

    def __init__(
        self,
        method: nn.Module,
        batches: BatchSource,
        config: TrainerConfig,
        folder: Path,
        origin: Origin | None = None,
    ) -> None:
        """Prepare optimizers and, where the folder holds a checkpoint of an interrupted run, continue from it.

        Raises:
            ConfigError: nothing in `method` is trainable, settings that are out of range or do not go together, the
                folder's checkpoints belong to other settings, or what the run builds on has changed since.
            CheckpointError: none of the folder's checkpoints is whole.
        """
        config.check()
        self.folder = folder
        self.method = method
        self.last_update: Mapping[str, UpdateSize] = {}
        self._batches = batches
        self._origin = origin or Origin()
        self._done = _Progress()
        self.accelerator = make_accelerator(chosen_trackers(config.trackers), str(folder))
        self._checkpoints = Checkpoints(folder, config.keep_checkpoints)
        begun = self._begun()
        began_with = None if begun is None else begun.settings.get("mixed_precision")
        self.config = config = replace(config, mixed_precision=settled_precision(config.mixed_precision, began_with))
        check_sharding(config)
        if not any(parameter.requires_grad for parameter in method.parameters()):
            raise ConfigError("Nothing to train: every parameter of the method is frozen.")
        self._placement = place(method, config, self.accelerator)
        trained = self._placement.trained
        self._optimizer = make_optimizer(config.optimizer, trained, config.learning_rate, config.other_learning_rate)
        # One process' share of the work is like another's, and they would write the same files.
        tools = config.debug if self.is_main else ()
        self._tools = TrainingTools(tools, trained, folder / DEBUG_FOLDER, config.debug_steps)
        average_on = torch.device("cpu") if config.ema_device == "cpu" else None
        self.ema = ExponentialMovingAverage(trained, config.ema_decay, average_on)
        self._scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=config.mixed_precision == "fp16")
        named = {name: p for name, p in trained.named_parameters() if p.requires_grad}
        self._state = TrainingState(named, self._optimizer, self.ema, self._scaler)
        if begun is not None:
            self._resume(begun)
        self._saved_step = -1 if begun is None else self.step
        self._optimizer = self._state.optimizer = self._placement.prepare(self._optimizer)
        self._log = RunLog(folder / LOG_FILE, self.accelerator)

    @property
    def step(self) -> int:
        """Steps done."""
        return self._done.step

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.accelerator.is_main_process

    def fit(
        self, progress: Progress | None = None, observers: Sequence[Observer] = (), until: int | None = None
    ) -> None:
        """Train to the last step. Ctrl-C and SIGTERM let the present step end; then the same call continues from there.

        Args:
            progress: is told how far it is.
            observers: look on, see `Observer`.
            until: stop after this step, as if it were for another day: the rate goes on as for all steps.

        Raises:
            KeyboardInterrupt: after such a signal, or from `progress`; the state is saved.
            TrainingError: the loss became NaN or infinite; the last checkpoint is kept.
            NonFiniteError: likewise, found by the guard of `config.debug` in the layer where it happened.
            OutputError: a checkpoint cannot be written, and the one before is kept; or another program trains here.
        """
        last = self.config.steps if until is None else min(until, self.config.steps)
        _make_folder(self.folder)
        with self._held(), stop_signals() as stop, self._trackers(), self._tools:
            self._log.begin(self.step)
            try:
                self._train(last, stop, progress, observers)
            except KeyboardInterrupt:
                self._save()
                raise
            self._save()

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """While the block runs, `method` is in evaluation mode and holds the averaged weights.

        All processes must enter it; where weights are shared out, only the main process has them in `method`.
        """
        with self._optimizer.averaged(), self.ema.applied(), self._placement.gathered():
            self.method.eval()
            yield

    def _train(self, last: int, stop: StopRequest, progress: Progress | None, observers: Sequence[Observer]) -> None:
        started = saved = time.monotonic() - self._done.seconds
        if self.step == 0 and last > 0 and observers:
            self._log.write(0, 0.0, self._observed(observers))
        while self.step < last:
            self._tools.begin_step(self.step)
            due = time.monotonic() - saved > self.config.checkpoint_seconds
            looked_at = [each for each in observers if self.step + 1 == last or _is_due(each, self.step + 1)]
            watched = any(getattr(each, "wants_updates", False) for each in looked_at)
            values, stopping, due = self._train_step(watched, stop.requested, due)
            metrics = self._done.metrics
            for name, value in values.items():
                metrics[name] = metrics.get(name, value) * _SMOOTHING + value * (1 - _SMOOTHING)
            self._done.seconds = time.monotonic() - started
            at_end = self.step == last
            looking = [each for each in observers if at_end or _is_due(each, self.step)]
            observed = self._observed(looking) if looking else {}
            shown = self.step % self.config.log_every == 0 or self.step == self.config.steps
            if shown or observed:
                self._log.write(self.step, self._done.seconds, metrics | self._rates() | observed)
            if shown and progress is not None:
                progress(self.step, self.config.steps, metrics)
            if stopping or (stop.requested and self.accelerator.num_processes == 1):
                raise KeyboardInterrupt
            if due:
                self._save()
                saved = time.monotonic()

    def _train_step(self, watched: bool, stop: bool, due: bool) -> tuple[dict[str, float], bool, bool]:
        """One step; what it measured, and whether all processes stop and save after it."""
        config = self.config
        self._optimizer.set_rate(config.schedule.factor(self.step, config.steps))
        self._placement.model.train()
        sums: dict[str, float] = {}
        for part in range(config.accumulate):
            for name, value in self._backward(part).items():
                sums[name] = sums.get(name, 0.0) + value
        values = {name: value / config.accumulate for name, value in sums.items()}
        values["loss"], stopping, due = self._agreed(values["loss"], stop, due)
        for optimizer in self._optimizer.optimizers:
            self._scaler.unscale_(optimizer)
        watch = UpdateWatch(self._state.parameters, self._placement.gradient_of) if watched else None
        self._check(values)
        norm = self._placement.update(self._optimizer, self._scaler, config.max_gradient_norm)
        values["gradient_norm"] = norm
        self._check(values)
        self._scaler.update()
        if math.isfinite(norm):
            self.ema.update()
        self._done.clipped += norm > config.max_gradient_norm
        self._done.step += 1
        if watch is not None:
            self.last_update = watch.sizes(self._done.clipped / self.step)
        return values, stopping, due

    def _backward(self, part: int) -> dict[str, float]:
        index = self._index(part)
        batch, generator = self._batch(index), self._generator(index)
        count = self.config.accumulate
        is_last = part == count - 1
        try:
            with self._placement.backward_of(is_last):
                output = self._forward(self._placement.model, batch, generator)
                loss = output["loss"] if count == 1 else output["loss"] / count
                self._placement.backward(self._scaler.scale(loss), is_last)
        except NonFiniteError as error:  # the guard of `config.debug` knows the layer, and no batch
            raise NonFiniteError(f"{error}\n  It was in {_named(index, batch)}.") from error
        device = output["loss"].device
        values = {name: value.detach().to(device, torch.float32).reshape(()) for name, value in output.items()}
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))

    def _forward(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = halves.get(self.config.mixed_precision)
        kind = self.accelerator.device.type
        with nullcontext() if dtype is None else torch.autocast(kind, dtype):
            return model(batch, generator)

    def _index(self, part: int) -> int:
        processes = self.accelerator.num_processes
        return (self.step * self.config.accumulate + part) * processes + self.accelerator.process_index

    def _batch(self, index: int) -> Batch:
        return on_device(self._batches(index), self.accelerator.device)

    def _generator(self, index: int) -> torch.Generator:
        seed = self.config.seed * 1_000_003 + index
        torch.manual_seed(seed)  # what draws by itself, as dropout does, must not depend on what was drawn before
        return torch.Generator().manual_seed(seed)

    def _agreed(self, loss: float, stop: bool, due: bool) -> tuple[float, bool, bool]:
        """The loss of all processes, whether any is to stop, and whether the main one wants to save.

        All must stop after the same step: one that went on alone would wait for the others for ever.
        """
        count = self.accelerator.num_processes
        if count == 1:
            return loss, stop, due
        own = [loss, float(stop), float(due and self.is_main)]
        told: Any = self.accelerator.reduce(torch.tensor(own, device=self.accelerator.device), "sum")
        total, stopping, saving = told.tolist()
        return total / count, stopping > 0, saving > 0

    def _check(self, values: dict[str, float]) -> None:
        loss, norm = values["loss"], values.get("gradient_norm")
        too_small = self._scaler.is_enabled() and self._scaler.get_scale() < _SMALLEST_SCALE
        overflow = self._scaler.is_enabled() and not too_small  # the next step scales the loss less
        if math.isfinite(loss) and (norm is None or math.isfinite(norm) or overflow):
            return
        kept = self._checkpoints.steps()
        state = f"The checkpoint of step {kept[0]} is kept in {self.folder}. " if kept else ""
        norm_said = "" if norm is None else f", gradient norm {norm}"
        raise TrainingError(
            f"Step {self.step}: loss {loss}{norm_said}{self._where()} {state}If the clips are in order, "
            "lower the learning rate, in another folder."
        )

    def _where(self) -> str:
        """Which batches went into the step that went wrong, and the layer, if looking again finds it; sentences end."""
        told = [_named(index, self._batches(index)) for index in map(self._index, range(self.config.accumulate))]
        found = "" if self._placement.is_sharded else self._layer()
        return f", in {' and '.join(told)}.{found}"

    def _layer(self) -> str:
        for parameter in self._optimizer.parameters:
            parameter.grad = None
        try:
            with AnomalyGuard(self.method) as guard:
                guard.step = f"training step {self.step}"
                for part in range(self.config.accumulate):
                    index = self._index(part)
                    loss = self._forward(self.method, self._batch(index), self._generator(index))["loss"]
                    if self.accelerator.num_processes == 1:  # gradients of several would wait for each other
                        loss.backward()
        except NonFiniteError as error:
            return f" {str(error).splitlines()[0]}"
        return ""

    def _rates(self) -> dict[str, float]:
        group = self._optimizer.optimizers[0].param_groups[0]
        return {
            "learning_rate": float(group["lr"]) * float(group.get("d", 1.0)),  # prodigy's own factor
            "clipped": self._done.clipped / max(1, self.step),
        }

    def _observed(self, observers: Sequence[Observer]) -> dict[str, float]:
        values: dict[str, float] = {}
        with self.evaluated(), torch.no_grad():
            if self.is_main:
                for observer in observers:
                    values |= observer.observe(self, self.step)
        self.accelerator.wait_for_everyone()
        return values

    @contextmanager
    def _held(self) -> Iterator[None]:
        with locked_folder(self.folder, "trains") if self.is_main else nullcontext():
            yield

    @contextmanager
    def _trackers(self) -> Iterator[None]:
        start_trackers(self.accelerator, self.folder.name or "muybridge", self.config.record())
        try:
            yield
        finally:
            finish_trackers(self.accelerator)

    def _save(self) -> None:
        if self.step == self._saved_step:
            return
        together = self._placement.saves_together
        if not self.is_main and not together:
            return
        step = self.step
        try:
            if self.is_main:
                self._checkpoints.begin(step)
            if together:
                self.accelerator.wait_for_everyone()
            self._state.write(self._checkpoints.part(step), self.is_main)
            if self.is_main:
                self._checkpoints.finish(step, self._facts())
            if together:
                self.accelerator.wait_for_everyone()
        except WRITING_ERRORS as error:
            raise self._checkpoints.unwritten(error) from error
        finally:
            if self.is_main:
                self._checkpoints.abandon(step)
        self._saved_step = step

    def _facts(self) -> SettingsDict:
        return {
            "format": 1,
            "version": __version__,
            "step": self.step,
            "seconds": self._done.seconds,
            "clipped": self._done.clipped,
            "metrics": self._done.metrics,
            "settings": self._settings(),
            **self._origin.record(),
            **self._state.facts(),
        }

    def _settings(self) -> SettingsDict:
        return {**self.config.record(), "processes": self.accelerator.num_processes}

    def _begun(self) -> _Begun | None:
        def read(found: Checkpoint) -> _Begun:
            facts = found.facts
            return _Begun(facts["settings"], facts, lambda state: state.read(found.folder, facts))

        begun = self._checkpoints.newest(read, quiet=not self.is_main)
        path = self.folder / STATE_FILE
        return _begun_before(path) if begun is None and path.is_file() else begun

    def _resume(self, begun: _Begun) -> None:
        changed = changed_settings(begun.settings, self._settings(), CHANGEABLE_SETTINGS)
        if changed:
            raise ConfigError(
                f"The run in {self.folder} has begun with other settings ({', '.join(changed)}). Choose another output "
                "folder to start anew, or the old settings to continue."
            )
        if changed_words := self._origin.changed_since(begun.facts):
            raise ConfigError(
                f"The run in {self.folder} cannot go on: {changed_words} since it began. Choose another output folder "
                "to start anew, or put back what was there."
            )
        try:
            begun.take(self._state)
        except BrokenCheckpointError as error:
            raise CheckpointError(
                f"{self.folder}: {error}. Delete its newest checkpoint to go on from another."
            ) from error
        facts = begun.facts
        self._origin = self._origin.completed(facts)
        self._done = _Progress(facts["step"], facts["seconds"], facts.get("clipped", 0), facts.get("metrics", {}))
        if self.is_main:
            logger.info("continuing %s from step %d", self.folder, self.step)


def _begun_before(path: Path) -> _Begun:
    """A run whose state is one file, as version 0.1 wrote it."""
    advice = "Choose another output folder, or delete the file to start anew."
    try:
        state = read_tensors(path)
    except BrokenCheckpointError as error:
        raise CheckpointError(f"{path} is not the state of a training run ({error}). {advice}") from error
    if not isinstance(state, dict) or not state.keys() >= _PARTS_BEFORE:
        raise CheckpointError(f"{path} is not the state of a training run (parts are missing). {advice}")
    facts = {"step": state["step"], "seconds": state["seconds"]}
    return _Begun(state["config"], facts, lambda target: target.take(state, path))


def _named(index: int, batch: Batch) -> str:
    named = [f"{name} {', '.join(map(str, batch[name]))}" for name in ("ids", "files") if name in batch]
    return f"batch {index} ({'; '.join(named)})" if named else f"batch {index}"


def _is_due(observer: Observer, step: int) -> bool:
    return step % observer.every == 0


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made ({error.strerror}). Choose another one.") from error
