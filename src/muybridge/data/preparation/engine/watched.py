"""A process that runs jobs and may crash, hang, or want too much memory: each costs one record."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from muybridge.data.preparation.engine.job import Finished, Job, ended, not_loaded
from muybridge.data.preparation.engine.worker import Leaving, Loading, Unloadable, work
from muybridge.data.preparation.stage import Stage
from muybridge.errors import PreparationError

TRIES = 2
"""How often a record may end a process before it is given up; what else ended it does not come twice."""
_STARTS = 5
_START_S = 600.0
_LOAD_S = 1800.0
_END_S = 2.0


class WatchedProcess:
    """Starts a process, and another one whenever it has ended; takes one job at a time."""

    def __init__(self, stages: Sequence[Stage], work_folder: Path, memory_bytes: int | None) -> None:
        """For the stages that jobs count. Nothing is started yet."""
        self._stages = stages
        self._folder = work_folder
        self._content = pickle.dumps((tuple(stages), work_folder))
        self._memory_bytes = memory_bytes
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._given: Job | None = None
        self._done: list[Finished] = []
        self._tries = 0
        self._failed_starts = 0
        self._loading: int | None = None
        self._is_ready = False
        self._deadline = float("inf")
        self.last_id = ""
        """Of the record that it was given last, parts of which it may still hold."""

    def start(self) -> None:
        """Start the process; it gets ready by itself.

        Raises:
            PreparationError: it cannot be started.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        arguments = (child, self._content, self._memory_bytes)
        process = context.Process(target=work, args=arguments, daemon=True)
        try:
            process.start()
        except OSError as error:
            raise PreparationError(f"No process can be started: {error.strerror}. Try fewer workers.") from error
        finally:
            child.close()  # so that the end of the process shows
        self._process = process
        self._is_ready, self._loading = False, None
        self._deadline = time.monotonic() + _START_S

    @property
    def pipe(self) -> Connection:
        """That there is something to read from when something happened."""
        if self._pipe is None:
            raise PreparationError("The process was not started.")
        return self._pipe

    @property
    def is_started(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def is_free(self) -> bool:
        """Whether it takes a job."""
        return self._given is None

    @property
    def seconds_left(self) -> float:
        """Until what it does has taken too long."""
        return max(0.0, self._deadline - time.monotonic())

    def give(self, job: Job) -> None:
        """Have a job run; it must be free. The first one starts the process."""
        self._given, self._done, self._tries, self.last_id = job, [], 0, job.record.id
        if self._process is None:
            self.start()
        self._send()

    def look(self) -> list[Finished]:
        """What came of the job since the last look. Call it when `pipe` can be read or no time is left.

        Raises:
            PreparationError: a stage cannot begin, or no process can be started.
        """
        found: list[Finished] = []
        try:
            while self.pipe.poll():
                found += self._take(self.pipe.recv())
        except (EOFError, OSError):
            return found + self._after_end()
        if self.seconds_left == 0 and (self._given is not None or not self._is_ready):
            self._end()
            return found + self._too_late()
        return found

    def stop(self) -> None:
        """End the process."""
        self._given = None
        self._end()

    def _take(self, message: object) -> list[Finished]:
        if isinstance(message, Finished):
            self._done.append(message)
            self._tries = 0
            if message.is_last:
                self._given = None
                self._deadline = float("inf")
            else:
                self._set_deadline()
            return [message]
        if isinstance(message, Loading):
            self._loading = None if message.is_done else message.stage
            self._set_deadline()
        elif isinstance(message, Unloadable):
            raise PreparationError(message.reason)
        elif isinstance(message, Leaving):
            self._end()
            self._again()  # with the job that it was given before this was read
        else:  # the first word
            self._is_ready, self._failed_starts = True, 0
            self._set_deadline()
        return []

    def _set_deadline(self) -> None:
        if not self._is_ready:
            return
        if self._loading is not None:
            self._deadline = time.monotonic() + _LOAD_S
        elif self._given is not None:
            job = self._left()
            self._deadline = time.monotonic() + job.seconds(self._stages)
        else:
            self._deadline = float("inf")

    def _left(self) -> Job:
        """What is left of the job, as far as this side knows."""
        if self._given is None:
            raise PreparationError("There is no job.")
        for finished in self._done:
            self._given = self._given.after(finished, self._stages, self._folder)
        self._done.clear()
        return self._given

    def _send(self) -> None:
        try:
            self.pipe.send(self._left())
        except OSError:  # it ended while it had nothing to do
            self._end()
            self.start()
            self.pipe.send(self._left())
        self._set_deadline()

    def _after_end(self) -> list[Finished]:
        """The process has ended by itself."""
        code = None
        if self._process is not None:
            self._process.join(_END_S)
            code = self._process.exitcode
        self._end()
        if not self._is_ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise PreparationError(
                    f"No process stays alive ({_ended_by(code)}). Try fewer workers, or more memory."
                )
        elif self._loading is not None:
            raise not_loaded(self._stages[self._loading].name, f"its process ended ({_ended_by(code)}).")
        elif self._given is not None:
            self._tries += 1
            if self._tries >= TRIES:
                return self._given_up(
                    ended(self._left(), "crashed", "crashed", f"its process ended: {_ended_by(code)}")
                )
        self._again()
        return []

    def _too_late(self) -> list[Finished]:
        if not self._is_ready:
            raise PreparationError(f"A process did not get ready in {_START_S:g} s. Try fewer workers.")
        if self._loading is not None:
            raise not_loaded(self._stages[self._loading].name, f"it was not ready after {_LOAD_S:g} s.")
        job = self._left()
        self._tries += 1
        if self._tries >= TRIES:
            return self._given_up(
                ended(job, "timeout", "timeout", f"it took longer than {job.seconds(self._stages):.0f} s")
            )
        self._again()
        return []

    def _given_up(self, finished: Finished) -> list[Finished]:
        self._given = None
        self.start()
        return [finished]

    def _again(self) -> None:
        self.start()
        if self._given is not None:
            self._send()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()


def _ended_by(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
