"""What of a run is large: weights, the optimizer's state and the average, as files of a checkpoint and back.

In one process, or where every process has all weights, that is one file. Where weights are shared out, each process
writes its parts. Both are read by any number of processes, sharing them out or not.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException

from muybridge.errors import ConfigError
from muybridge.training.checkpoints import BrokenCheckpointError
from muybridge.training.ema import ExponentialMovingAverage
from muybridge.training.optimizers import TrainingOptimizer
from muybridge.training.shards import any_sharded, shared_out_like
from muybridge.types import SettingsDict

WHOLE_FILE = "state.pt"
PARTS_FOLDER = "parts"
WRITING_ERRORS = (OSError, RuntimeError)
"""What goes wrong while a state is written; torch's writer reports a full disk as a RuntimeError."""
_WEIGHT, _SLOT, _AVERAGE = "parameters", "optimizer", "average"


@dataclass
class TrainingState:
    """What a checkpoint is made of and brings back.

    Attributes:
        parameters: all that are trained, by name.
        optimizer: of these.
        ema: likewise.
        scaler: of the loss.
    """

    parameters: dict[str, nn.Parameter]
    optimizer: TrainingOptimizer
    ema: ExponentialMovingAverage
    scaler: torch.amp.GradScaler

    @property
    def is_sharded(self) -> bool:
        """Whether several processes have parts of it."""
        return any_sharded(list(self.parameters.values()))

    def facts(self) -> SettingsDict:
        """What of it is small, for the manifest."""
        return {"ema_updates": self.ema.num_updates, "scaler": self.scaler.state_dict()}

    def write(self, folder: Path, is_main: bool = True) -> None:
        """Write files to `folder`; where something is shared out, all processes must call this.

        Args:
            folder: the same for all processes.
            is_main: whether this process writes what is whole.

        Raises:
            Exception: one of `WRITING_ERRORS`.
        """
        if self.is_sharded:
            try:
                checkpoint.save(dict(self._tensors()), checkpoint_id=folder / PARTS_FOLDER)
            except CheckpointException as error:
                raise RuntimeError(str(error)) from error
            return
        optimizers = self.optimizer.state_dict()
        if not is_main:
            return
        state = {
            "parameters": {name: p.detach().cpu() for name, p in self.parameters.items()},
            "optimizers": optimizers,
            "ema": self.ema.state_dict(),
        }
        torch.save(state, folder / WHOLE_FILE)

    def read(self, folder: Path, facts: SettingsDict) -> None:
        """Take over what `write` wrote, in as many processes as it may have been.

        Raises:
            BrokenCheckpointError: it cannot be read.
            ConfigError: it belongs to another method.
        """
        if (folder / WHOLE_FILE).is_file():
            self.take(read_tensors(folder / WHOLE_FILE), folder)
        else:
            self._read_parts(folder, facts)
        self.scaler.load_state_dict(facts["scaler"])

    def take(self, state: SettingsDict, source: Path) -> None:
        """Take over a state that is all in one file.

        Raises:
            ConfigError: it belongs to another method.
        """
        self._check({name: value.shape for name, value in state["parameters"].items()}, source)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(shared_out_like(parameter, state["parameters"][name]))
        if self.is_sharded:
            for optimizer, saved in zip(self.optimizer.optimizers, state["optimizers"], strict=True):
                numbers = (number for group in saved["param_groups"] for number in group["params"])
                for parameter, number in zip(_parameters_of(optimizer), numbers, strict=True):
                    for slot, value in saved["state"].get(number, {}).items():
                        _put(optimizer, parameter, slot, value)
        else:
            self.optimizer.load_state_dict(state["optimizers"])
        self.ema.load_state_dict(state["ema"])

    def _check(self, found: dict[str, torch.Size], source: Path) -> None:
        if found != {name: p.shape for name, p in self.parameters.items()}:
            raise ConfigError(f"{source} belongs to another model. Choose another output folder.")

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        names = {id(p): name for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            yield f"{_WEIGHT}/{name}", parameter.detach()
        for optimizer in self.optimizer.optimizers:
            for parameter, slots in optimizer.state.items():
                for slot, value in slots.items():
                    yield f"{_SLOT}/{names[id(parameter)]}/{slot}", value
        for name, value in self.ema.state_dict()["average"].items():
            yield f"{_AVERAGE}/{name}", value

    def _read_parts(self, folder: Path, facts: SettingsDict) -> None:
        reader = checkpoint.FileSystemReader(folder / PARTS_FOLDER)
        known: Any = reader.read_metadata().state_dict_metadata
        self._check({_name_of(key): each.size for key, each in known.items() if key.startswith(_WEIGHT)}, folder)
        targets = {key: self._target(key, each) for key, each in known.items()}
        try:
            with warnings.catch_warnings():  # that one process reads what several have written is meant
                warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
                checkpoint.load(targets, storage_reader=reader, no_dist=not distributed.is_initialized())
        except CheckpointException as error:
            raise BrokenCheckpointError(str(error).splitlines()[0]) from error
        owners = {id(p): o for o in self.optimizer.optimizers for p in _parameters_of(o)}
        averages: dict[str, Tensor] = {}
        with torch.no_grad():
            for key, value in targets.items():
                name = _name_of(key)
                parameter = self.parameters[name]
                if key.startswith(_WEIGHT):
                    parameter.copy_(value)
                elif key.startswith(_SLOT):
                    _put(owners[id(parameter)], parameter, key.rpartition("/")[2], value)
                else:
                    averages[name] = value
        self.ema.load_state_dict({"num_updates": facts["ema_updates"], "average": averages})

    def _target(self, key: str, described: Any) -> Tensor:
        parameter = self.parameters[_name_of(key)].detach()
        dtype = described.properties.dtype
        if described.size == parameter.shape:
            return torch.zeros_like(parameter, dtype=dtype)
        return torch.zeros(described.size, dtype=dtype)


def read_tensors(path: Path) -> SettingsDict:
    """Whatever torch saved, if it is nothing but plain values and tensors.

    Raises:
        BrokenCheckpointError: it is not, or cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged, or something else"
        raise BrokenCheckpointError(f"{path.name}: {reason}") from error


def _name_of(key: str) -> str:
    kind, _, rest = key.partition("/")
    return rest.rpartition("/")[0] if kind == _SLOT else rest


def _parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _put(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, slot: str, value: Any) -> None:
    if isinstance(value, Tensor) and value.shape == parameter.shape and type(value) is Tensor:
        value = shared_out_like(parameter.detach(), value)
    optimizer.state[parameter][slot] = value
