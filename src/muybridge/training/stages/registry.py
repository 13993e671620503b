"""Stages by the name of their method, and sets of clips by theirs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

from muybridge.data.settings import DataSettings
from muybridge.errors import ConfigError
from muybridge.training.data import TrainingData
from muybridge.training.stages.stage import Stage

S = TypeVar("S", bound=Stage)
D = TypeVar("D", bound=type[TrainingData])

_SHIPPED = (
    "muybridge.demo.stages.clips",
    "muybridge.demo.stages.image",
    "muybridge.demo.stages.video",
    "muybridge.training.stages.adapters",
    "muybridge.training.stages.sparse_control",
    "muybridge.training.stages.motion_lora",
    "muybridge.training.stages.transformer",
    "muybridge.training.stages.distil",
    "muybridge.training.stages.autoencoder",
    "muybridge.training.stages.lora",
)
"""Modules that register something when they are imported. By name, as training itself imports no set of clips."""
_STAGES: dict[str, type[Stage]] = {}
_DATA: dict[str, type[TrainingData]] = {}


def register_stage(cls: type[S]) -> type[S]:
    """Class decorator that makes a stage known under its method, `method: Literal["name"]`.

    The same class defined anew (a module imported again, a notebook cell run again) takes its own place.

    Raises:
        ConfigError: the method has no such type, or another stage has it.
    """
    _put(_STAGES, method_of(cls), cls, "stage")
    return cls


def method_of(cls: type[Stage]) -> str:
    """The method that a stage is named by.

    Raises:
        ConfigError: it names none, or several.
    """
    field = cls.model_fields["method"]
    names = get_args(field.annotation)
    if len(names) != 1 or not field.is_required():
        raise ConfigError(f'{cls.__qualname__} must name its method: method: Literal["its-name"].')
    return names[0]


def register_data(name: str) -> Callable[[D], D]:
    """Class decorator that makes a set of clips known under the name that run files have for it.

    Raises:
        ConfigError: another one has the name.
    """

    def register(cls: D) -> D:
        _put(_DATA, name, cls, "set of clips")
        return cls

    return register


def _put(known: dict[str, type], name: str, cls: type, what: str) -> None:
    other = known.get(name, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(
            f"There is a {what} {name!r} already, {other.__qualname__} of {other.__module__}; {cls.__qualname__} of "
            f"{cls.__module__} needs another name."
        )
    known[name] = cls


def stage_classes() -> list[type[Stage]]:
    """Every stage there is: those that ship in the order they are listed in, then those of others."""
    _import_shipped()
    places = {name: place for place, name in enumerate(_SHIPPED)}
    return sorted(_STAGES.values(), key=lambda cls: places.get(cls.__module__, len(places)))


def data_names() -> list[str]:
    """Names of all sets of clips."""
    _import_shipped()
    return sorted(_DATA)


def captions_of(name: str, count: int, seed: int) -> list[str]:
    """Captions of clips of the set of a name.

    Raises:
        ConfigError: there is no such set, or it cannot say what it shows.
    """
    found = getattr(training_data(name), "captions", None)
    if found is None:
        raise ConfigError(f"The set {name!r} has no captions to give; give a text file with a prompt a line.")
    return found(count, seed)


def training_data(name: str | DataSettings, prior: Path | None = None) -> TrainingData:
    """The set of clips of a name, or people's own; with these a set that shows what the model can do already.

    Raises:
        ConfigError: there is none.
    """
    if isinstance(name, DataSettings):
        from muybridge.training.clip_sets import ClipSets

        sets = ClipSets(name, prior)
        sets.check_sources()
        return sets
    if name not in data_names():
        raise ConfigError(f"There is no set of clips {name!r}. There are: {', '.join(data_names())}.")
    return _DATA[name]()


def _import_shipped() -> None:
    for name in _SHIPPED:
        importlib.import_module(name)
