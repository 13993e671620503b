"""What a step of preparing clips is: a function from a record to records, with settings, rules and a key."""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from muybridge.data.preparation.status import Status, Verdict
from muybridge.data.record import Record
from muybridge.errors import ConfigError, MuybridgeError
from muybridge.types import SettingsDict, SettingsView

ENTRY_POINT_GROUP = "muybridge.data_stages"
"""Of entry points from the name of a stage to its class: `faces = "my_package.faces:Faces"`."""
_OWN_STAGES = "muybridge.data.preparation.stages"
_RECORD_FIELDS = frozenset(Record.__dataclass_fields__) - {"extra"}
_DERIVED = frozenset(("duration_s",))


class StageSettings(BaseModel):
    """Base of the settings of stages: plain values that files can hold, each with a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Refused(MuybridgeError):  # noqa: N818  # nothing is wrong with the program or its settings
    """A record that a stage cannot go on with; only this one ends.

    Attributes:
        rule: why, in a word that programs can go by, as `broken-tail`.
        reason: why, in words, without the file's name.
        status: `unreadable` if its file cannot be used, `dropped` if it can but is not wanted, or another.
    """

    def __init__(self, rule: str, reason: str, status: Status = "dropped") -> None:
        """What there is to say of the record."""
        super().__init__(reason)
        self.rule, self.reason = rule, reason
        self.status: Status = status

    def __reduce__(self) -> tuple[type[Refused], tuple[str, ...]]:
        return type(self), (self.rule, self.reason, self.status)


ALMOST_S = 1.001e-3
"""How far a length in seconds may be beyond a bound: clocks of some files, as Matroska's, count thousandths."""


@dataclass(frozen=True)
class Rule:
    """A bound on something that a stage has found out; applied after all stages, so that changing it costs seconds.

    Attributes:
        name: what a record is dropped by, as `static`.
        value_of: where the value stands: a field of records, or names in their `extra` joined by dots: `motion.mean`.
        what: the value in words, as "motion in % of the diagonal a second".
        least: what is smaller is dropped; None for no such bound.
        most: what is larger is dropped; likewise.
        slack: how far beyond them is let through, as nobody means so little.
    """

    name: str
    value_of: str
    what: str
    least: float | None = None
    most: float | None = None
    slack: float = 0.0

    def value(self, record: Record) -> float | None:
        """What the record has there; None where it was not found out, which no rule drops."""
        found = field_of(record, self.value_of)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    def verdict(self, record: Record) -> Verdict | None:
        """Why the record is dropped, or None."""
        value = self.value(record)
        if value is None:
            return None
        if self.least is not None and value < self.least - self.slack:
            return Verdict(self.name, value, self.least, f"{self.what}: {value:.4g}, below {self.least:g}")
        if self.most is not None and value > self.most + self.slack:
            return Verdict(self.name, value, self.most, f"{self.what}: {value:.4g}, above {self.most:g}")
        return None


class Stage(ABC):
    """A step of preparing clips.

    It is a function from a record to records: it reads files, writes only into the folder it is given, and leaves
    nothing to chance, so that one process or many give the same. What it finds goes into a record's `extra` under
    names that it lists in `gives`. Bounds on that are rules, which are applied later; `run` does not look at them.
    Stages that look at frames share those of the record that was looked at last, so all of them should be run on one
    record before the next.

    Attributes:
        name: its own, given by `register_stage`.
        version: counts up whenever other results come of the same settings.
        Settings: what can be set.
        thresholds: names of settings that only rules use, so that results stay valid when they change.
        needs: fields that a stage before must give, of `Record` or of `extra`.
        uses: fields that change what it does where they are there, without being needed.
        gives: fields that it fills in or changes.
        is_global: whether its rule looks at all records together: `run_all` is called when `run` was for each.
        of_kept: whether it runs only on records that the rules of all stages before it keep: for what is dear or
            leaves files behind.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    Settings: ClassVar[type[StageSettings]]
    thresholds: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()
    uses: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()
    is_global: ClassVar[bool] = False
    of_kept: ClassVar[bool] = False

    def __init__(self, settings: StageSettings | None = None) -> None:
        """With `settings`, which are of its class `Settings`; the default ones without.

        Raises:
            ConfigError: settings that do not go together, or name what is not there.
        """
        self.settings = self.Settings() if settings is None else settings

    @property
    def seconds_more(self) -> float:
        """That a record may take beyond what looking at it takes, as for answers from elsewhere."""
        return 0.0

    @property
    def has_model(self) -> bool:
        """Whether it may need more memory than looking at a clip takes."""
        return bool(self.digest())

    def idle_reason(self) -> str | None:
        """Why it does nothing with its settings, as when it has a model only if one is named; None if it does."""
        return None

    def begin(self) -> None:  # noqa: B027  # likewise
        """Find out whether it will be able to work, once a run, before anything is decoded.

        Raises:
            MuybridgeError: it will not.
        """

    def load(self) -> None:  # noqa: B027  # most stages need nothing
        """Load what it works with, once a process, before the first `run`.

        Raises:
            MuybridgeError: that cannot be had.
        """

    def digest(self) -> str:
        """Of models and prompts that results depend on beside the settings; they need not be loaded."""
        return ""

    @abstractmethod
    def run(self, record: Record, work: Path) -> list[Record]:
        """What becomes of a record: itself with more in it, several parts of it, or none.

        Args:
            record: not changed.
            work: a folder that exists, for files named after the records' ids.

        Raises:
            Refused: it cannot be used.
            PreparationError: no record can, as when a server no longer accepts a key; the whole run ends.
        """

    def rules(self) -> Sequence[Rule]:
        """Bounds on what it finds."""
        return ()

    def verdict(self, record: Record) -> Verdict | None:
        """Why the record is dropped by the stage's rules, from what is stored in it; None if it is not."""
        return next(filter(None, (rule.verdict(record) for rule in self.rules())), None)

    def run_all(self, records: Sequence[Record]) -> dict[str, Verdict]:
        """Of global stages: which records are dropped, by their ids.

        Args:
            records: that everything else keeps; their order does not matter.
        """
        del records
        return {}

    def key(self, record: Record) -> str:
        """Under which its result for a record is kept: the same key means the same result."""
        used = {name: field_of(record, name) for name in sorted(self.needs | self.uses)}
        settings = self.settings.model_dump(mode="json", exclude=set(self.thresholds))
        parts = [self.name, self.version, settings, self.digest(), record.id, record.kind, used]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def field_of(record: Record, name: str) -> object:
    """A field of a record, its `duration_s`, or what is in its `extra` under names joined by dots; None if nothing."""
    if name in _RECORD_FIELDS or name in _DERIVED:
        return getattr(record, name)
    found: object = record.extra
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def noted(record: Record, **found: object) -> Record:
    """The record with more in its `extra`."""
    return replace(record, extra={**record.extra, **found})


def changes_of(record: Record, results: Sequence[Record]) -> list[SettingsDict]:
    """What `run` did to a record, so that it can be done again to one that differs in what the stage does not use."""
    return [_changes(record, result) for result in results]


def apply_changes(record: Record, changes: Sequence[SettingsView]) -> list[Record]:
    """What `run` would give for a record, from what `changes_of` noted."""
    results = []
    for change in changes:
        kept = {name: value for name, value in record.extra.items() if name not in change["removed"]}
        results.append(replace(record, **change["fields"], extra={**kept, **change["extra"]}))
    return results


def _changes(before: Record, after: Record) -> SettingsDict:
    fields = {name: getattr(after, name) for name in sorted(_RECORD_FIELDS)}
    return {
        "fields": {name: value for name, value in fields.items() if value != getattr(before, name)},
        "extra": {name: value for name, value in after.extra.items() if before.extra.get(name) != value},
        "removed": sorted(before.extra.keys() - after.extra.keys()),
    }


S = TypeVar("S", bound=Stage)
_STAGES: dict[str, type[Stage]] = {}


def register_stage(name: str) -> Callable[[type[S]], type[S]]:
    """Class decorator that makes a stage known under a name. The same class defined anew takes its own place.

    Raises:
        ConfigError: another class has that name, or it is no stage.
    """

    def register(cls: type[S]) -> type[S]:
        if not (isinstance(cls, type) and issubclass(cls, Stage)):
            raise ConfigError(f"Only a subclass of Stage can be the stage {name!r}; given {cls!r}.")
        known = _STAGES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"The stage {name!r} is already taken by {known.__qualname__}; choose another name.")
        cls.name = name
        _STAGES[name] = cls
        return cls

    return register


def stage_kinds() -> dict[str, type[Stage]]:
    """All stages by name: the built-in ones, those registered, and those that installed packages offer.

    Raises:
        ConfigError: a package offers one that cannot be imported, or that is no stage.
    """
    _import_own()
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in _STAGES:
            continue
        try:
            found = entry.load()
        except Exception as error:  # a stranger's module may do anything while it is imported
            raise ConfigError(
                f"The stage {entry.name!r} cannot be imported from {entry.value!r}: {type(error).__name__}: {error}. "
                "Mend or uninstall its package."
            ) from error
        register_stage(entry.name)(found)
    return dict(_STAGES)


@cache
def _import_own() -> None:
    package = importlib.import_module(_OWN_STAGES)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{_OWN_STAGES}.{module.name}")
