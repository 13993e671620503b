"""Recipes: which stages a set is prepared by, in which order, with which settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from muybridge.data.preparation.stage import Stage, StageSettings, stage_kinds
from muybridge.errors import ConfigError, MuybridgeError
from muybridge.files.names import nearest_name
from muybridge.files.validation import YAML_ERRORS, described_faults, yaml_problem
from muybridge.types import SettingsDict

_FOLDER = Path(__file__).parent / "recipes"
_OF_READERS = frozenset(("id", "media", "kind", "text", "start", "end"))
"""Fields that every record has before the first stage."""


@dataclass(frozen=True)
class Recipe:
    """Stages in their order.

    Attributes:
        name: of a shipped recipe, or its file.
        stages: those that do something.
        idle: names of those that do nothing with their settings, each with the reason.
    """

    name: str
    stages: tuple[Stage, ...]
    idle: dict[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def load(cls, name_or_file: str, changes: Sequence[str] = ()) -> Recipe:
        """Read a shipped recipe or a file of one's own, and check it.

        Args:
            name_or_file: one of `recipe_names`, or a YAML file.
            changes: each `STAGE.SETTING=VALUE`, or `STAGE=off` to leave one out; applied in order.

        Raises:
            ConfigError: there is no such recipe, or anything in it or in `changes` is wrong; the message has it all.
        """
        return cls.of(_read(name_or_file), changes, name_or_file)

    @classmethod
    def of(cls, values: object, changes: Sequence[str] = (), name: str = "the recipe") -> Recipe:
        """A recipe out of plain values, as its file holds them. Raises ConfigError as `load`."""
        faults: list[str] = []
        kinds = stage_kinds()
        given = _entries(values, kinds, faults)
        for change in changes:
            _apply(given, change, kinds, faults)
        made = {stage: _make(kinds[stage], settings, faults) for stage, settings in given.items()}
        stages = [stage for stage in made.values() if stage is not None]
        idle = {stage.name: reason for stage in stages if (reason := stage.idle_reason())}
        # Of a stage that could not be made, its class knows what it needs.
        in_order = [made[stage] or kinds[stage] for stage in given if stage not in idle]
        faults += _order_faults(in_order, idle, kinds)
        if faults:
            raise ConfigError(f"{name} cannot be used: {'; '.join(faults)}.")
        return cls(name, tuple(stage for stage in stages if stage.name not in idle), idle)

    def settings(self) -> list[SettingsDict]:
        """The stages that do something with all of their settings, as a file could hold them."""
        return [{stage.name: stage.settings.model_dump(mode="json")} for stage in self.stages]


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def _read(name_or_file: str) -> object:
    names = recipe_names()
    path = _FOLDER / f"{name_or_file}.yaml" if name_or_file in names else Path(name_or_file)
    if not path.is_file():
        raise ConfigError(
            f"There is no recipe {name_or_file!r}{nearest_name(name_or_file, names)} Shipped are {', '.join(names)}; "
            "or give a YAML file."
        )
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except YAML_ERRORS as error:
        raise ConfigError(f"{path} is not a YAML file: {yaml_problem(error)}.") from error


def _entries(values: object, kinds: Mapping[str, type[Stage]], faults: list[str]) -> dict[str, SettingsDict]:
    """Settings by stage, of stages that there are."""
    if not isinstance(values, Mapping) or not isinstance(listed := values.get("stages"), list) or not listed:
        faults.append("it must hold 'stages:' with a list, as '- probe' or '- split: {threshold: 12}'")
        return {}
    faults += [f"it has no {other!r}, only stages" for other in values if other != "stages"]
    found: dict[str, SettingsDict] = {}
    for number, entry in enumerate(listed, 1):
        name, settings = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else (entry, {})
        if not isinstance(name, str) or not isinstance(settings, Mapping | None):
            faults.append(f"stage {number} must be a name, or a name with settings; given {entry!r}")
        elif name not in kinds:
            faults.append(_unknown_stage(name, kinds))
        elif name in found:
            faults.append(f"{name} is there twice")
        else:
            found[name] = {str(setting): value for setting, value in (settings or {}).items()}
    return found


def _apply(given: dict[str, SettingsDict], change: str, kinds: Mapping[str, type[Stage]], faults: list[str]) -> None:
    left, separator, text = change.partition("=")
    name, dot, setting = left.strip().partition(".")
    try:
        value: Any = yaml.safe_load(text)
    except YAML_ERRORS:
        faults.append(f"--set {change!r}: {text!r} is no value that YAML knows")
        return
    if not separator or not name or (dot and not setting):
        faults.append(f"--set takes STAGE.SETTING=VALUE, as in split.threshold=12, or STAGE=off; given {change!r}")
    elif name not in kinds:
        faults.append(f"--set {change!r}: {_unknown_stage(name, kinds)}")
    elif name not in given:
        faults.append(f"--set {change!r}: the recipe has no stage {name}; it has {', '.join(given)}")
    elif dot:
        given[name] = {**given[name], setting: value}
    elif value is False:
        del given[name]
    else:
        faults.append(f"--set {change!r}: a stage itself can only be set to off")


def _make(kind: type[Stage], settings: SettingsDict, faults: list[str]) -> Stage | None:
    known = kind.Settings.model_fields
    unknown = [setting for setting in settings if setting not in known]
    for setting in unknown:
        there_are = f"there are {', '.join(known)}" if known else "it has none"
        faults.append(f"{kind.name} has no setting {setting!r}{nearest_name(setting, known, ';')} {there_are}")
    try:
        stage = kind(kind.Settings.model_validate({n: v for n, v in settings.items() if n in known}))
    except ValidationError as error:
        faults.append(_prefixed(kind.name, error, kind.Settings))
    except MuybridgeError as error:
        faults.append(f"{kind.name}: {str(error).rstrip('.')}")
    else:
        return stage
    return None


def _prefixed(name: str, error: ValidationError, schema: type[StageSettings]) -> str:
    return "; ".join(f"{name}.{part}".replace(".the values:", ":") for part in described_faults(error, schema))


def _order_faults(
    stages: Sequence[Stage | type[Stage]], idle: Mapping[str, str], kinds: Mapping[str, type[Stage]]
) -> Iterable[str]:
    """What is needed before it is there, and what is changed after it was used."""
    there = set(_OF_READERS)
    users: dict[str, str] = {}
    for stage in stages:
        if missing := sorted(stage.needs - there):
            yield f"{stage.name} needs {', '.join(missing)} first{_who_gives(missing, stage.name, idle, kinds)}"
        used = {users[name]: name for name in sorted(stage.gives) if users.get(name, stage.name) != stage.name}
        for user, name in used.items():
            yield f"{stage.name} changes {name}, which {user} before it uses: put {stage.name} before {user}"
        there |= stage.gives
        # Who changes what it uses, as captions are rewritten, does not mind that others do.
        users = dict.fromkeys((stage.needs | stage.uses) - stage.gives, stage.name) | users


def _who_gives(missing: Iterable[str], name: str, idle: Mapping[str, str], kinds: Mapping[str, type[Stage]]) -> str:
    wanted = set(missing)
    givers = [kind for kind, cls in kinds.items() if cls.gives & wanted and not cls.needs & wanted and kind != name]
    if not givers:
        return ", and no stage gives that"
    because = [f"{kind} does nothing: {idle[kind]}" for kind in givers if kind in idle]
    return f" ({because[0]})" if because else f": put {' or '.join(givers)} before it"


def _unknown_stage(name: str, kinds: Iterable[str]) -> str:
    return f"there is no stage {name!r}{nearest_name(name, kinds, ';')} there are {', '.join(sorted(kinds))}"
