"""Which stage is run on which record next, until each has come to an end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from muybridge.data.preparation.engine.changes import apply_result
from muybridge.data.preparation.engine.job import Engine, Job, Limits, Stamp, not_loaded
from muybridge.data.preparation.engine.journal import Entry, Journal
from muybridge.data.preparation.stage import Stage
from muybridge.data.preparation.status import Outcome, Verdict
from muybridge.data.record import Record
from muybridge.errors import MuybridgeError


@dataclass(frozen=True)
class Branch:
    """What has come so far of an entry of the set: itself, or one of the pieces it was split into.

    Attributes:
        root: number of the entry.
        unit: what it counts to in the progress of a leg.
        record: as it is by now.
        stage: place of the next stage.
        stamp: of the file of the entry.
        verdicts: of global stages, by their place.
        outcome: how it ended; None as long as it has not.
    """

    root: int
    record: Record
    unit: int = 0
    stage: int = 0
    stamp: Stamp | None = None
    verdicts: tuple[tuple[int, Verdict], ...] = ()
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Advance:
    """How far a run is.

    Attributes:
        leg: which part of the way, from 1: behind each stage that looks at all records together a new one begins.
        legs: how many there are.
        done: entries, or in later legs clips, that are through.
        total: of how many.
        clips: that have come of them.
        seconds: that they last.
        share: of all there is to do in this leg, as far as that can be told.
    """

    leg: int
    legs: int
    done: int
    total: int
    clips: int
    seconds: float
    share: float


@dataclass
class Schedule:
    """Runs stages on records.

    Attributes:
        stages: in their order.
        journal: what is known of before, and where results go.
        engine: that runs them.
        work: the folder that stages write into.
        limits: of each stage.
        is_part: whether there are records elsewhere, so that global rules cannot be applied.
        on_advance: called as entries are done.
    """

    stages: Sequence[Stage]
    journal: Journal
    engine: Engine
    work: Path
    limits: Limits
    is_part: bool = False
    on_advance: Callable[[Advance], None] | None = None
    _signatures: list[str] = field(init=False)
    _has_begun: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Stages are known in the journal by what they would do to nothing."""
        nothing = Record(id="", media="", kind="video")
        self._signatures = [stage.key(nothing) for stage in self.stages]

    def run(self, branches: Sequence[Branch]) -> list[Branch]:
        """All that comes of them, each with its outcome; in no order.

        Raises:
            PreparationError: it cannot go on.
            OutputError: the journal cannot be written.
        """
        stops = [place + 1 for place, stage in enumerate(self.stages) if stage.is_global]
        legs = list(dict.fromkeys((*stops, len(self.stages))))
        left, ended = list(branches), []
        for number, stop in enumerate(legs, 1):
            done = _Leg(self, stop, left, (number, len(legs))).run()
            ended += [branch for branch in done if branch.outcome is not None]
            left = [branch for branch in done if branch.outcome is None]
            if stop in stops and not self.is_part:
                left = self._judged(left, stop - 1)
        return ended + [self.settled(branch) for branch in left]

    def begin(self) -> None:
        """Have all stages find out whether they can work, before the first thing that is not known of before.

        Raises:
            PreparationError: one cannot.
        """
        if self._has_begun:
            return
        self._has_begun = True
        for stage in self.stages:
            try:
                stage.begin()
            except MuybridgeError as error:
                raise not_loaded(stage.name, str(error)) from error

    def signature(self, stage: int) -> str:
        """Of the results of a stage with its settings."""
        return self._signatures[stage]

    def is_fresh(self, stage: int) -> bool:
        """Whether the journal had nothing of a stage with its settings when it was opened."""
        return self._signatures[stage] not in self.journal.stages

    def verdicts(self, branch: Branch, stop: int) -> list[tuple[int, Verdict]]:
        """Of the rules of the stages before `stop`, in the order of these."""
        by_rules = [
            (place, verdict)
            for place, stage in enumerate(self.stages[:stop])
            if (verdict := stage.verdict(branch.record)) is not None
        ]
        return sorted((*by_rules, *branch.verdicts), key=lambda found: found[0])

    def settled(self, branch: Branch) -> Branch:
        """A branch that no stage is left for, by the rules of all that it has come through."""
        verdicts = self.verdicts(branch, branch.stage)
        record = branch.record.to_json()
        if not verdicts:
            return replace(branch, outcome=Outcome(record, "ok"))
        place, first = verdicts[0]
        all_of_them = tuple(verdict for _, verdict in verdicts)
        outcome = Outcome(record, "dropped", first.rule, first.reason, all_of_them, self.stages[place].name)
        return replace(branch, outcome=outcome)

    def _judged(self, branches: Iterable[Branch], place: int) -> list[Branch]:
        """With what a global stage says of those that everything before it keeps."""
        branches = list(branches)
        kept = [branch.record for branch in branches if not self.verdicts(branch, place + 1)]
        kept.sort(key=lambda record: (record.id, record.media, record.text))  # whichever came first
        distinct: dict[str, Record] = {}
        for record in kept:  # one file with several captions is there once, or it would be like itself
            distinct.setdefault(record.id, record)
        found = self.stages[place].run_all(list(distinct.values()))
        return [
            replace(branch, verdicts=(*branch.verdicts, (place, found[branch.record.id])))
            if branch.record.id in found and branch.record.id in distinct
            else branch
            for branch in branches
        ]


class _Leg:
    """The way up to a stage that looks at all records together, or to the end."""

    def __init__(self, schedule: Schedule, stop: int, branches: Sequence[Branch], number: tuple[int, int]) -> None:
        self._schedule = schedule
        self._stop = stop
        self._stack = [replace(branch, unit=number) for number, branch in enumerate(branches)][::-1]
        self._waiting: dict[str, list[Branch]] = {}
        self._done: list[Branch] = []
        self._progress = _Progress(branches, number, schedule.on_advance)

    def run(self) -> list[Branch]:
        """All that comes of the branches; those without an outcome have come through."""
        engine, journal = self._schedule.engine, self._schedule.journal
        while self._stack or self._waiting:
            while self._stack and engine.room:
                self._advance(self._stack.pop())
            if not self._waiting:
                continue
            for finished in engine.results():
                journal.add(finished, self._schedule.signature(finished.stage))
                if finished.is_last:
                    self._stack += reversed(self._waiting.pop(finished.job, []))
        return self._done

    def _advance(self, branch: Branch) -> None:
        """Go on with a branch up to where something has to be run, or it parts, or it ends."""
        schedule = self._schedule
        while branch.stage < self._stop:
            stage = schedule.stages[branch.stage]
            if stage.of_kept and schedule.verdicts(branch, branch.stage):
                self._end(schedule.settled(branch))
                return
            key = stage.key(branch.record)
            entry = schedule.journal.get(key)
            if entry is None:
                self._request(key, branch)
                return
            if entry.status != "ok":
                self._end(replace(branch, outcome=_outcome(branch, entry, stage)))
                return
            records = apply_result(branch.record, entry.found, schedule.work)
            if len(records) != 1:
                self._part(branch, records, stage)
                return
            branch = replace(branch, record=records[0], stage=branch.stage + 1)
        self._end(branch)

    def _request(self, key: str, branch: Branch) -> None:
        if (waiting := self._waiting.get(key)) is not None:
            waiting.append(branch)
            return
        self._waiting[key] = [branch]
        schedule = self._schedule
        schedule.begin()
        job = Job(key, branch.stage, self._reach(branch.stage), branch.record, schedule.limits, branch.stamp)
        schedule.engine.submit(job)

    def _reach(self, stage: int) -> int:
        """Up to where stages can follow each other without a question to rules or to the journal."""
        schedule = self._schedule
        reach = stage + 1
        while reach < self._stop and schedule.is_fresh(reach) and not schedule.stages[reach].of_kept:
            reach += 1
        return reach

    def _part(self, branch: Branch, records: Sequence[Record], stage: Stage) -> None:
        if not records:
            outcome = Outcome(branch.record.to_json(), "dropped", stage.name, "nothing of it is left", stage=stage.name)
            self._end(replace(branch, outcome=outcome))
            return
        self._progress.parted(branch, len(records))
        pieces = [replace(branch, record=record, stage=branch.stage + 1) for record in records]
        self._stack += reversed(pieces)

    def _end(self, branch: Branch) -> None:
        self._done.append(branch)
        self._progress.ended(branch)


class _Progress:
    """Counts what is through."""

    def __init__(
        self, branches: Sequence[Branch], number: tuple[int, int], tell: Callable[[Advance], None] | None
    ) -> None:
        self._number = number
        self._tell = tell
        self._weights = [_weight(branch) for branch in branches]
        self._open = [1] * len(branches)
        self._in_all = sum(self._weights) or 1.0
        self._through = 0.0
        self._done = self._clips = 0
        self._seconds = 0.0

    def parted(self, branch: Branch, pieces: int) -> None:
        self._open[branch.unit] += pieces - 1

    def ended(self, branch: Branch) -> None:
        self._open[branch.unit] -= 1
        if branch.outcome is None:
            self._clips += 1
            self._seconds += branch.record.duration_s or 0.0
        if not self._open[branch.unit]:
            self._done += 1
            self._through += self._weights[branch.unit]
        if self._tell is not None:
            share = self._through / self._in_all
            self._tell(Advance(*self._number, self._done, len(self._open), self._clips, self._seconds, share))


def _weight(branch: Branch) -> float:
    """About how much there is to do."""
    duration = branch.record.duration_s
    return duration if duration is not None else 1.0 if branch.stamp is None else float(branch.stamp.size)


def _outcome(branch: Branch, entry: Entry, stage: Stage) -> Outcome:
    return Outcome(branch.record.to_json(), entry.status, entry.rule, entry.reason, stage=stage.name)
