"""Who is told a run's values besides its log: trackers of accelerate, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import LoggerType

from muybridge.errors import ConfigError
from muybridge.types import SettingsDict

_DEFAULT = "tensorboard"
_PACKAGES = {"comet_ml": "comet-ml"}


def chosen_trackers(names: Sequence[str] | None) -> list[str | LoggerType | GeneralTracker]:
    """The trackers of those names; for None tensorboard, if it is installed.

    Raises:
        ConfigError: there is no such tracker, or it is not installed.
    """
    if names is None:
        return [_DEFAULT] if find_spec(_DEFAULT) else []
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"There is no tracker {name!r}. There are: {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}.")
        if find_spec(name) is None:
            raise ConfigError(
                f"The tracker {name} is not installed: pip install {_PACKAGES.get(name, name)}, or take it out of "
                "trackers."
            )
    return list(names)


def start_trackers(accelerator: Accelerator, project: str, settings: Mapping[str, Any]) -> None:
    """Tell the trackers of the accelerator that a run begins, and with which settings."""
    if accelerator.log_with:
        accelerator.init_trackers(project, flattened(settings))


def finish_trackers(accelerator: Accelerator) -> None:
    """Let the trackers write what they have."""
    for tracker in accelerator.trackers:
        tracker.finish()


def flattened(settings: Mapping[str, Any], prefix: str = "") -> SettingsDict:
    """Nested settings as one level of numbers, booleans and texts, which is what trackers take."""
    flat: SettingsDict = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
