"""Jobs in processes of this machine that are watched."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Self

from muybridge.data.preparation.engine.job import Engine, Finished, Job
from muybridge.data.preparation.engine.watched import WatchedProcess
from muybridge.data.preparation.stage import Stage

_LOOK_S = 1.0


class PoolEngine(Engine):
    """Several watched processes; each has one job at a time."""

    def __init__(self, stages: Sequence[Stage], work: Path, workers: int, memory_bytes: int | None = None) -> None:
        """With the stages that jobs count.

        Args:
            stages: that jobs count.
            work: the folder that they may write into.
            workers: how many processes.
            memory_bytes: that each may have; None for all there is.
        """
        self._processes = [WatchedProcess(stages, work, memory_bytes) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.stop()

    @property
    def room(self) -> int:
        """How many more jobs it takes now."""
        return sum(process.is_free for process in self._processes)

    def submit(self, job: Job) -> None:
        """Take a job."""
        free = [process for process in self._processes if process.is_free]
        # One that had the record before still has its frames.
        known = (process for process in free if process.last_id == job.record.id)
        next(known, free[0]).give(job)

    def results(self) -> list[Finished]:
        """What came of stages, one of them at least or none after a while."""
        by_pipe = {process.pipe: process for process in self._processes if process.is_started}
        soonest = min((process.seconds_left for process in by_pipe.values()), default=0.0)
        ready = connection.wait(list(by_pipe), min(soonest, _LOOK_S))
        late = [pipe for pipe, process in by_pipe.items() if process.seconds_left == 0 and pipe not in ready]
        return [finished for pipe in (*ready, *late) for finished in by_pipe[pipe].look()]  # type: ignore[index]
