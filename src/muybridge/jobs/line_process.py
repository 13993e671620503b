"""A process that answers lines with lines, so that what it imports, takes and dies of is not its parent's."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

_log = logging.getLogger(__name__)
_LEAVING_S = 2.0


class LineProcess:
    """Runs a module of this package; started with the first question, and again where it died.

    Its module calls `answers`. It ends with its parent, however that ends. One asks at a time: callers hold a lock.
    """

    def __init__(self, arguments: Sequence[str], first: str, start_seconds: float, answer_seconds: float) -> None:
        """Start nothing yet.

        Args:
            arguments: name of the module, and what it is called with.
            first: a line that it reads before any question; empty for none.
            start_seconds: that starting may take.
            answer_seconds: that answering may take. A process that takes longer is ended.
        """
        self._arguments = tuple(arguments)
        self._first = first
        self._seconds = (start_seconds + answer_seconds, answer_seconds)
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._is_closed = False
        self.process: subprocess.Popen[str] | None = None

    def ask(self, line: str) -> str | None:
        """The answer to a line without its end; None where there is none, as the process ended or took too long."""
        answer, is_new = self._asked(line)
        if answer is None and not is_new and self._left():
            answer, _ = self._asked(line)
        if answer is None and self.process is not None:
            _log.warning("%s gave no answer, and is started anew", self._arguments[0])
            self.end()
        return answer

    def _asked(self, line: str) -> tuple[str | None, bool]:
        """The answer, and whether the process was started for it."""
        if self._is_closed:
            return None, True
        is_new = self.process is None or self.process.poll() is not None
        if is_new:
            self._start()
        process = self.process
        if process is None or process.stdin is None:
            return None, is_new
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return self._answers.get(timeout=self._seconds[0 if is_new else 1]), is_new
        except (OSError, ValueError, queue.Empty):
            return None, is_new

    def _left(self) -> bool:
        """Whether the process has ended as one that is done, before it saw the question."""
        try:
            return self.process is not None and self.process.wait(_LEAVING_S) == 0
        except subprocess.TimeoutExpired:
            return False

    def stop(self) -> None:
        """End the process for good, also while somebody asks it something, who then hears of the end."""
        self._is_closed = True
        process = self.process
        if process is not None:
            process.kill()

    def end(self) -> None:
        """End the process; the next question starts another one."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _start(self) -> None:
        self.end()
        self._answers = queue.Queue()
        process = subprocess.Popen(
            [sys.executable, "-m", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # none of them calculates much
            text=True,
        )
        self.process = process
        if self._is_closed:  # since it was looked at
            process.kill()
        if process.stdin is not None and self._first:
            with contextlib.suppress(OSError):
                process.stdin.write(self._first)
                process.stdin.flush()
        threading.Thread(target=_read, args=(process, self._answers), daemon=True).start()


def answers() -> TextIO:
    """Where a process of this kind writes its answers, a line each; what is printed otherwise is kept out of them.

    From now on it also ends soon after its parent, whatever it is doing then.
    """
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return stream


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LEAVING_S)
    os._exit(1)


def _read(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
    """Pass answers on, and None once there will be no more."""
    try:
        if process.stdout is not None:
            with process.stdout:
                for line in process.stdout:
                    answers.put(line)
    finally:
        answers.put(None)
