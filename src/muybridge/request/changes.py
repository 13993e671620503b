"""Single values of a request changed by where they are, as in `sampling.eta=0.5`."""

from __future__ import annotations

import re
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
            place = _of_kind(place, part, path)
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
    place[int(parts[-1]) if re.fullmatch(r"-?[0-9]{1,9}", parts[-1]) else parts[-1]] = value


def _of_kind(conditions: object, kind: str, path: str) -> SettingsDict:
    """The condition of a kind, or of a number from 0; a new one where there is none."""
    if not isinstance(conditions, list) or not all(isinstance(each, dict) for each in conditions):
        raise ConfigError(f"--set {path}: conditions must be a list of values with their kind.")
    if re.fullmatch("[0-9]{1,4}", kind):
        if int(kind) >= len(conditions):
            raise ConfigError(f"--set {path}: there are {len(conditions)} conditions, counted from 0.")
        return conditions[int(kind)]
    same = [each for each in conditions if each.get("kind") == kind]
    if len(same) > 1:
        raise ConfigError(f"--set {path}: there are {len(same)} of this kind; name one by its number, from 0.")
    if not same:
        conditions.append({"kind": kind})
        return conditions[-1]
    return same[0]


def _copied(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, (list, tuple)) else value
