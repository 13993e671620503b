"""Single values of a request changed by where they are, as in `sampling.eta=0.5`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from muybridge.errors import ConfigError
from muybridge.files.validation import YAML_ERRORS, yaml_problem
from muybridge.types import SettingsDict, SettingsView

_CONDITIONS = "conditions"


def changed(document: SettingsView, changes: Iterable[str]) -> SettingsDict:
    """A document with some values set.

    Args:
        document: plain values.
        changes: each as in `sampling.eta=0.5`: a path and a value as YAML has it. A condition is named by its kind, as
            in `conditions.source.strength=0.5`, and is added where there is none.

    Raises:
        ConfigError: one that is no assignment, or a path through something that has no parts.
    """
    found = _copied(document)
    for change in changes:
        path, is_assigned, text = change.partition("=")
        if not is_assigned or not all(path.split(".")):
            raise ConfigError(f"--set takes NAME=VALUE, as in sampling.eta=0.5; given {change!r}.")
        try:
            value = yaml.safe_load(text)
        except YAML_ERRORS as error:
            raise ConfigError(f"The value of --set {path} cannot be read: {yaml_problem(error)}.") from error
        _put(found, path.split("."), value, path)
    return found


def _put(document: SettingsDict, parts: list[str], value: object, path: str) -> None:
    place: Any = document
    for index, part in enumerate(parts[:-1]):
        if index == 1 and parts[0] == _CONDITIONS:
            place = _of_kind(place, part)
            continue
        if not isinstance(place, dict):
            raise ConfigError(f"--set {path}: {'.'.join(parts[:index])} has no parts that could be set.")
        if place.get(part) is None:
            place[part] = [] if part == _CONDITIONS and index == 0 else {}
        place = place[part]
    if not isinstance(place, dict):
        raise ConfigError(
            f"--set {path}: name what to set of it, as in conditions.source.strength=0.5 or sampling.eta=0.5."
        )
    place[int(parts[-1]) if parts[-1].lstrip("-").isdigit() else parts[-1]] = value


def _of_kind(conditions: list[SettingsDict], kind: str) -> SettingsDict:
    for each in conditions:
        if each.get("kind") == kind:
            return each
    conditions.append({"kind": kind})
    return conditions[-1]


def _copied(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, (list, tuple)) else value
