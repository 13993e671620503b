"""Stages on one record, whatever runs them, and what comes of that."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from muybridge.data.preparation.engine.changes import apply_result, result_of
from muybridge.data.preparation.stage import Refused, Stage
from muybridge.data.preparation.status import Status
from muybridge.data.record import Record
from muybridge.errors import MuybridgeError, OutputError, PreparationError
from muybridge.files.utf8 import is_utf8

CHANGED = "changed"
"""Rule of records whose file was written to while it was read."""
WRITTEN_TO = "it was written to while it was read; run the same command again"


@dataclass(frozen=True)
class Stamp:
    """What shows that a file was written to.

    Attributes:
        path: of it.
        size: in bytes.
        mtime_ns: when it was last written to.
    """

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str) -> Stamp | None:
        """As it is now; None where it is not there."""
        try:
            found = os.stat(path)  # noqa: PTH116  # names of all kinds, as they are
        except (OSError, ValueError):
            return None
        return cls(path, found.st_size, found.st_mtime_ns)

    @property
    def still_holds(self) -> bool:
        """Whether the file is as it was."""
        return Stamp.of(self.path) == self


@dataclass(frozen=True)
class Limits:
    """What one record may take of one stage.

    Attributes:
        seconds: of any.
        per_second: seconds more for each second that it lasts.
        bytes_per_second: of its file that are read at least in a second, where it is not known yet how long it lasts.
    """

    seconds: float = 60.0
    per_second: float = 4.0
    bytes_per_second: int = 5_000_000

    def seconds_for(self, record: Record, stamp: Stamp | None) -> float:
        """That a stage may take on a record."""
        duration = record.duration_s
        if duration is not None:
            return self.seconds + self.per_second * duration
        return self.seconds + (0 if stamp is None else stamp.size / self.bytes_per_second)


@dataclass(frozen=True)
class Job:
    """Stages on one record, one after the other as long as one record comes of each.

    Attributes:
        key: of the result of the first stage; no two jobs at once have the same.
        stage: place of the first stage among all.
        stop: place of the first one that is not to be run.
        record: to run them on.
        limits: for each of the stages.
        stamp: of the file that the record's id is from.
        first: its key before any of its stages was done; empty until then.
    """

    key: str
    stage: int
    stop: int
    record: Record
    limits: Limits = field(default_factory=Limits)
    stamp: Stamp | None = None
    first: str = ""

    @property
    def name(self) -> str:
        """Stays the same while its stages are run."""
        return self.first or self.key

    def seconds(self, stages: Sequence[Stage]) -> float:
        """That its first stage may take."""
        return self.limits.seconds_for(self.record, self.stamp) + stages[self.stage].seconds_more

    def after(self, finished: Finished, stages: Sequence[Stage], work: Path) -> Job:
        """What is left of it when its first stage has given one record."""
        record = apply_result(self.record, json.loads(finished.found), work)[0]
        return replace(
            self, key=stages[self.stage + 1].key(record), stage=self.stage + 1, record=record, first=self.name
        )


@dataclass(frozen=True)
class Finished:
    """What came of the first stage of a job.

    Attributes:
        job: name of the job.
        stage: place of the stage.
        key: of the result.
        is_last: whether nothing is left of the job.
        status: ok, or why the record ends here.
        found: JSON of what the stage did to the record.
        rule: in a word, why the record ends here.
        reason: likewise in words.
    """

    job: str
    stage: int
    key: str
    is_last: bool
    status: Status
    found: str = "[]"
    rule: str | None = None
    reason: str | None = None


class Engine(ABC):
    """Runs jobs in any order; leave it as a context to have its processes ended."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Be ready for jobs."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what runs."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many more jobs it takes now."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job, for which there must be room."""

    @abstractmethod
    def results(self) -> list[Finished]:
        """Wait until stages are done, and say what came of them, those of a job in order; at times there is nothing.

        Raises:
            PreparationError: a stage cannot begin or go on, or no process can be started.
            OutputError: what a stage writes cannot be written.
        """


class Worker:
    """Runs jobs in this process; stages are loaded when they are first needed."""

    def __init__(self, stages: Sequence[Stage], work: Path) -> None:
        """With the stages that jobs count; `work` is the folder that they may write into."""
        self.stages = stages
        self.work = work
        self._loaded: set[int] = set()

    def is_loaded(self, stage: int) -> bool:
        """Whether a stage can run at once."""
        return stage in self._loaded

    def load(self, stage: int) -> None:
        """Load what a stage needs.

        Raises:
            PreparationError: that cannot be had.
        """
        try:
            self.stages[stage].load()
        except Exception as error:
            raise not_loaded(self.stages[stage].name, _told(error)) from error
        self._loaded.add(stage)

    def run_first(self, job: Job) -> Finished:
        """Run the first stage of a job, which is loaded if it was not.

        Raises:
            MemoryError: there is none left; what else goes wrong with the record becomes a status.
            PreparationError: the stage cannot be loaded, or says that it can go on with no record at all.
            OutputError: what it writes cannot be written.
        """
        if not self.is_loaded(job.stage):
            self.load(job.stage)
        result = self._run(job)
        if job.stamp is not None and not job.stamp.still_holds:
            return ended(job, "failed", CHANGED, WRITTEN_TO)
        return result

    def _run(self, job: Job) -> Finished:
        try:
            found = self.stages[job.stage].run(job.record, self.work)
            text = json.dumps(result_of(job.record, found, self.work), sort_keys=True, allow_nan=False)
        except Refused as refused:
            return ended(job, refused.status, refused.rule, refused.reason)
        except (MemoryError, PreparationError, OutputError):  # the next record would not fare better
            raise
        except Exception as error:  # whatever it is, it is about this record and not about the others
            return ended(job, "failed", "error", _told(error))
        if not all(is_utf8(each.text) for each in found):
            return ended(job, "failed", "error", "its caption became one that is not in UTF-8")
        is_last = len(found) != 1 or job.stage + 1 >= job.stop
        return Finished(job.name, job.stage, job.key, is_last, "ok", text)


def ended(job: Job, status: Status, rule: str, reason: str) -> Finished:
    """That a record ends in the first stage of a job."""
    return Finished(job.name, job.stage, job.key, True, status, rule=rule, reason=reason)


def out_of_memory(job: Job) -> Finished:
    """That the first stage of a job needed more memory than there is."""
    return ended(job, "crashed", "memory", "it needs more memory than it may have")


def not_loaded(stage: str, reason: str) -> PreparationError:
    """What to raise where a stage cannot begin at all."""
    return PreparationError(f"The stage {stage} cannot begin: {reason}")


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, MuybridgeError) else f"{type(error).__name__}: {error}"
