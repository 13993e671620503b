"""What became of a set that was prepared, read from its folder without running anything."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from muybridge.data.preparation.stage import Rule, Stage
from muybridge.data.preparation.status import Outcome, Status
from muybridge.data.readers.manifest import MANIFEST
from muybridge.data.record import Record, shown
from muybridge.data.writers.manifest import write_manifest
from muybridge.data.writers.places import path_from
from muybridge.errors import InputFileError
from muybridge.files.atomic import new_file
from muybridge.files.json_settings import read_json_object
from muybridge.types import SettingsDict

DROPPED = "dropped.jsonl"
RUN_FILE = "prepared.json"
_NAMED = 5


@dataclass(frozen=True)
class Bound:
    """A rule of a stage, as it was applied.

    Attributes:
        stage: whose rule it is.
        rule: with its limits.
    """

    stage: str
    rule: Rule


@dataclass(frozen=True)
class Step:
    """A line of the way from all clips to the kept ones.

    Attributes:
        stage: in which clips ended.
        rule: why.
        status: as what.
        clips: that ended.
        seconds: of them, as far as it is known.
        clips_left: after it.
        seconds_left: of these.
    """

    stage: str
    rule: str
    status: Status
    clips: int
    seconds: float
    clips_left: int
    seconds_left: float


@dataclass(frozen=True)
class Account:
    """What became of every entry of a set.

    Attributes:
        folder: that it was prepared into.
        recipe: name of the recipe.
        settings: the stages with their settings, as a recipe file holds them.
        idle: stages of the recipe that did nothing, each with the reason.
        bounds: all rules with their limits.
        source: the set that was prepared.
        version: of this program.
        inputs: entries of the set by how they ended; ok are those of which any clip is kept.
        outcomes: of all clips and of the entries that none came of; the kept ones first, both sorted by id.
        read_as: the format that the set was said to have; None where it was recognised.
    """

    folder: Path
    recipe: str
    settings: tuple[SettingsDict, ...]
    idle: dict[str, str]
    bounds: tuple[Bound, ...]
    source: str
    version: str
    inputs: dict[str, int]
    outcomes: tuple[Outcome, ...]
    read_as: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Account:
        """Of a folder that a set was prepared into.

        Raises:
            InputFileError: it is none, or damaged.
        """
        said = read_json_object(folder / RUN_FILE, "what was prepared", InputFileError, "Prepare the set again.")
        try:
            kept = [Outcome(values, "ok") for values in _lines(folder / MANIFEST)]
            dropped = [Outcome.from_json(values) for values in _lines(folder / DROPPED)]
            outcomes = tuple(_placed(outcome, folder) for outcome in (*kept, *dropped))
            bounds = tuple(Bound(values.pop("stage"), Rule(**values)) for values in said.pop("bounds"))
            settings = tuple(said.pop("settings"))
            return cls(folder=folder, bounds=bounds, outcomes=outcomes, settings=settings, **said)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputFileError(f"{folder} was not prepared by this version. Prepare the set again.") from error

    def write(self) -> None:
        """Write the folder's lists; each appears whole or not at all, and the one for training last.

        Raises:
            OutputError: they cannot be written.
        """
        dropped = sorted((outcome for outcome in self.outcomes if outcome.status != "ok"), key=_order)
        with new_file(self.folder / DROPPED) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
            for outcome in dropped:
                values = {**outcome.to_json(), "record_json": _from_folder(outcome.record_json, self.folder)}
                file.write(json.dumps(values, sort_keys=True) + "\n")
        bounds = [{"stage": bound.stage, **vars(bound.rule)} for bound in self.bounds]
        names = ("recipe", "settings", "idle", "source", "version", "inputs", "read_as")
        said = {name: getattr(self, name) for name in names}
        with new_file(self.folder / RUN_FILE) as temporary:
            text = json.dumps({**said, "bounds": bounds}, indent=1, sort_keys=True)
            temporary.write_text(f"{text}\n", encoding="ascii")
        write_manifest(self.kept, self.folder / MANIFEST)

    @cached_property
    def kept(self) -> tuple[Record, ...]:
        """The records that are to be trained on."""
        return tuple(Record.from_json(o.record_json) for o in self.outcomes if o.status == "ok")

    @property
    def statuses(self) -> dict[str, int]:
        """Clips, and entries that none came of, by status."""
        return dict(Counter(outcome.status for outcome in self.outcomes).most_common())

    @property
    def seconds(self) -> float:
        """That the kept clips last."""
        return sum(_seconds(outcome) for outcome in self.outcomes if outcome.status == "ok")

    @property
    def all_seconds(self) -> float:
        """That all clips last, as far as it is known."""
        return sum(map(_seconds, self.outcomes))

    def steps(self) -> list[Step]:
        """The way from all clips to the kept ones: what ended where, in the order of the stages."""
        places = {name: place for place, values in enumerate(self.settings) for name in values}
        groups: dict[tuple[str, str, Status], list[Outcome]] = {}
        for outcome in self.outcomes:
            if outcome.status != "ok":
                key = (outcome.stage or "", outcome.rule or outcome.status, outcome.status)
                groups.setdefault(key, []).append(outcome)
        clips, seconds = len(self.outcomes), self.all_seconds
        found: list[Step] = []
        for key in sorted(groups, key=lambda key: (places.get(key[0], -1), -len(groups[key]), key)):
            lost = sum(map(_seconds, groups[key]))
            clips, seconds = clips - len(groups[key]), seconds - lost
            found.append(Step(*key, len(groups[key]), lost, clips, seconds))
        return found

    def of_id(self, start: str) -> list[Outcome]:
        """Those whose id begins with this."""
        return [outcome for outcome in self.outcomes if str(outcome.record_json.get("id", "")).startswith(start)]

    def to_json(self) -> SettingsDict:
        """In numbers."""
        return {
            "folder": str(self.folder),
            "source": self.source,
            "recipe": self.recipe,
            "inputs": self.inputs,
            "clips": self.statuses,
            "minutes": {"kept": round(self.seconds / 60, 3), "all": round(self.all_seconds / 60, 3)},
            "steps": [vars(step) for step in self.steps()],
        }

    def __str__(self) -> str:
        lines = [f"{sum(self.inputs.values())} entries of {shown(self.source)}: {_counts(self.inputs)}"]
        lines.append(f"{len(self.outcomes)} clips, {self.all_seconds / 60:.1f} minutes")
        for step in self.steps():
            where = f"{step.stage}: {step.rule}" if step.stage else step.rule
            lines.append(f"  {where} takes {step.clips}, {step.seconds / 60:.1f} minutes; {step.clips_left} left")
        lines.append(f"{len(self.kept)} clips are kept, {self.seconds / 60:.1f} minutes")
        lines += self._failures()
        return "\n".join(lines)

    def _failures(self) -> list[str]:
        failed = [o for o in self.outcomes if o.status not in ("ok", "dropped")]
        lines = [f"  {shown_name(o)}: {o.status}: {shown(o.reason or '')}" for o in failed[:_NAMED]]
        more = [f"  and {len(failed) - _NAMED} more in {DROPPED}"] if len(failed) > _NAMED else []
        return [f"{len(failed)} could not be used:", *lines, *more] if failed else []


def bounds_of(stages: Iterable[Stage]) -> tuple[Bound, ...]:
    """All rules of some stages."""
    return tuple(Bound(stage.name, rule) for stage in stages for rule in stage.rules())


def ordered(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """The kept ones first, and both sorted by id."""
    return tuple(sorted(outcomes, key=lambda outcome: (outcome.status != "ok", _order(outcome))))


def shown_name(outcome: Outcome) -> str:
    """What stands for it in messages."""
    values = outcome.record_json
    return Record.from_json(values).name if values.get("id") else shown(str(values.get("media", "")))


def _order(outcome: Outcome) -> tuple[str, ...]:
    values = outcome.record_json
    return (*(str(values.get(name, "")) for name in ("id", "media", "text")), outcome.rule or "", outcome.reason or "")


def _seconds(outcome: Outcome) -> float:
    values = outcome.record_json
    if not values.get("id") or values.get("kind") != "video":
        return 0.0
    return Record.from_json(values).duration_s or 0.0


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _from_folder(values: SettingsDict, folder: Path) -> SettingsDict:
    return {**values, "media": path_from(folder, values["media"])} if values.get("id") else values


def _placed(outcome: Outcome, folder: Path) -> Outcome:
    values = outcome.record_json
    if not values.get("id"):
        return outcome
    return replace(outcome, record_json={**values, "media": os.path.join(folder, values["media"])})  # noqa: PTH118


def _lines(path: Path) -> Iterator[SettingsDict]:
    try:
        with path.open(encoding="ascii") as file:
            yield from map(json.loads, file)
    except OSError as error:
        raise InputFileError(f"{path} cannot be read ({error.strerror}). Prepare the set again.") from error


def input_statuses(endings: Sequence[Sequence[Outcome]]) -> dict[str, int]:
    """How entries ended, from the outcomes of what came of each."""
    counts: Counter[str] = Counter()
    for outcomes in endings:
        found = {outcome.status for outcome in outcomes}
        # Of an entry with several ends, the best one stands for it.
        counts[next(status for status in ("ok", "dropped", *sorted(found)) if status in found)] += 1
    return dict(sorted(counts.items(), key=lambda item: (item[0] != "ok", -item[1], item[0])))
