"""The process that runs jobs, from its start to its end. Nothing heavy is imported before its limits are set."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


@dataclass(frozen=True)
class Loading:
    """That a stage is being loaded, or that this is done; records do not count the time.

    Attributes:
        stage: which.
        is_done: whether it is.
    """

    stage: int
    is_done: bool = False


@dataclass(frozen=True)
class Unloadable:
    """That a stage cannot be loaded, or cannot go on whatever the record.

    Attributes:
        reason: why.
    """

    reason: str


@dataclass(frozen=True)
class Leaving:
    """That the process ends by itself after what it said before: what it needed of memory may not come back."""


def work(pipe: Connection, content: bytes, memory_bytes: int | None) -> None:
    """Run jobs that come through a pipe, and send what comes of them, until there are no more.

    Args:
        pipe: to the process that gives jobs.
        content: the stages and the folder that they may write into, pickled.
        memory_bytes: that this process may have.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who gives the jobs
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in _ONE_THREAD:  # there is a process for each core
        os.environ.setdefault(name, "1")
    try:
        _limit_memory(memory_bytes)
        _serve(pipe, content)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # nobody is left to work for


def _serve(pipe: Connection, content: bytes) -> None:
    from muybridge.data.preparation.engine.job import Worker, out_of_memory
    from muybridge.errors import OutputError, PreparationError

    worker = Worker(*pickle.loads(content))
    pipe.send(None)
    while (job := pipe.recv()) is not None:
        while job is not None:
            try:
                if not worker.is_loaded(job.stage):
                    pipe.send(Loading(job.stage))
                    worker.load(job.stage)
                    pipe.send(Loading(job.stage, is_done=True))
                finished = worker.run_first(job)
            except MemoryError:
                pipe.send(out_of_memory(job))
                pipe.send(Leaving())
                return
            except (PreparationError, OutputError) as error:
                pipe.send(Unloadable(str(error)))
                return
            pipe.send(finished)
            job = None if finished.is_last else job.after(finished, worker.stages, worker.work)


def _limit_memory(memory_bytes: int | None) -> None:
    if memory_bytes is None:
        return
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    least = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    resource.setrlimit(resource.RLIMIT_AS, (least, most))


def _end_with_parent() -> None:
    """A stage that hangs would otherwise outlive a killed program."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
