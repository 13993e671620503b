"""Jobs in this process: for looking for errors, and for stages that cannot be in several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from muybridge.data.preparation.engine.job import Engine, Finished, Job, Worker, out_of_memory
from muybridge.data.preparation.stage import Stage


class SerialEngine(Engine):
    """One job at a time, without limits: what crashes or hangs takes the program along."""

    def __init__(self, stages: Sequence[Stage], work: Path) -> None:
        """With the stages that jobs count; `work` is the folder that they may write into."""
        self._worker = Worker(stages, work)
        self._job: Job | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._job = None

    @property
    def room(self) -> int:
        """How many more jobs it takes now."""
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._job = job

    def results(self) -> list[Finished]:
        """Run the next stage of the job."""
        job = self._job
        if job is None:
            return []
        try:
            finished = self._worker.run_first(job)
        except MemoryError:
            finished = out_of_memory(job)
        self._job = None if finished.is_last else job.after(finished, self._worker.stages, self._worker.work)
        return [finished]
