"""Stages that do to a process what a file says: to be imported by the processes themselves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from muybridge.data.preparation.prepare import PrepareSettings, prepare
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.preparation.stage import Refused, Rule, Stage, StageSettings, noted
from muybridge.data.preparation.status import Verdict
from muybridge.data.record import Record
from muybridge.errors import InputFileError


class ReadSettings(StageSettings):
    least: int = 0
    factor: int = 1
    seconds: float = 0.0


class Read(Stage):
    """Does what the first word of a file says; else notes the number that it holds. Each run leaves a line in a log."""

    name = "read"
    Settings = ReadSettings
    settings: ReadSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("least", "seconds"))
    gives: ClassVar[frozenset[str]] = frozenset(("number",))

    def run(self, record: Record, work: Path) -> list[Record]:
        log_run(self, work)
        time.sleep(self.settings.seconds)
        word, _, rest = Path(record.media).read_text().partition(" ")
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "hang":
            time.sleep(100)
        if word == "bomb":
            bytearray(1 << 45)
        if word == "raise":
            raise ValueError("no")
        if word == "refuse":
            raise Refused("ugly", "it is ugly", "unreadable")
        if word == "parts":
            return [
                replace(noted(record, number=start), id=f"{record.id}-{start}", start=start, end=start + 1)
                for start in range(int(rest))
            ]
        if word == "write":
            target = work / f"{record.id}.mp4"
            target.write_text("7")
            return [replace(noted(record, number=7), media=str(target))]
        if word == "touch":
            Path(record.media).write_text("3 and something else")
        return [noted(record, number=self.settings.factor * int(word) if word.isdigit() else 0)]

    def rules(self) -> Sequence[Rule]:
        return (Rule("few", "number", "number", least=self.settings.least),)


class Double(Stage):
    """Doubles the number."""

    name = "double"
    Settings = StageSettings
    needs: ClassVar[frozenset[str]] = frozenset(("number",))
    gives: ClassVar[frozenset[str]] = frozenset(("doubled",))

    def run(self, record: Record, work: Path) -> list[Record]:
        log_run(self, work)
        return [noted(record, doubled=2 * record.extra.get("number", 0))]


class Largest(Stage):
    """Keeps, of all with the same last digit, the largest."""

    name = "largest"
    Settings = StageSettings
    is_global = True
    needs: ClassVar[frozenset[str]] = frozenset(("number",))

    def run(self, record: Record, work: Path) -> list[Record]:
        log_run(self, work)
        return [record]

    def run_all(self, records: Sequence[Record]) -> dict[str, Verdict]:
        best: dict[int, Record] = {}
        for record in sorted(records, key=lambda record: (record.extra["number"], record.id)):
            best[record.extra["number"] % 10] = record
        kept = {record.id for record in best.values()}
        return {r.id: Verdict("not-largest", None, None, "there is a larger one") for r in records if r.id not in kept}


class OfKept(Stage):
    """Says that it was there."""

    name = "of-kept"
    Settings = StageSettings
    of_kept = True
    gives: ClassVar[frozenset[str]] = frozenset(("seen",))

    def run(self, record: Record, work: Path) -> list[Record]:
        log_run(self, work)
        return [noted(record, seen=True)]


class Unloadable(Stage):
    name = "unloadable"
    Settings = StageSettings

    def load(self) -> None:
        raise InputFileError("its model is not there.")

    def run(self, record: Record, work: Path) -> list[Record]:
        return [record]


def log_run(stage: Stage, work: Path) -> None:
    with (work / "log.txt").open("a") as file:
        file.write(f"{stage.name}\n")


def runs(out: Path) -> list[str]:
    """Names of stages in the order in which they ran; forgotten then."""
    log = out / "clips" / "log.txt"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def recipe(*stages: Stage) -> Recipe:
    return Recipe("test", stages)


def write_files(folder: Path, *contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number:03}.mp4").write_text(content)
    return folder


def prepare_slowly(raw: str, out: str, workers: str) -> None:
    """What the program of a test does that kills it."""
    asked = recipe(Read(ReadSettings(seconds=0.05)), Double(), Largest(), OfKept())
    prepare(Path(raw), Path(out), asked, PrepareSettings(workers=int(workers)))
