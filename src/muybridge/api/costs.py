"""What requests cost, within a time: a process that is only just starting holds nobody up."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from muybridge.types import SettingsDict, SettingsView

logger = logging.getLogger(__name__)

_SECONDS = 10.0


class Planner(Protocol):
    """Says what a request costs, as `jobs.planner.Planner` does."""

    def cost(self, document: SettingsView) -> SettingsDict | None:
        """What a request takes; None where that is not known. Raises MuybridgeError where it cannot be carried out."""
        ...

    def known(self, document: SettingsView) -> SettingsDict | None:
        """The same without asking anybody; None where it has to be asked."""
        ...


class Costs:
    """Asks a planner, one question after the other."""

    def __init__(self, planner: Planner | None, seconds: float = _SECONDS) -> None:
        """None of a planner knows nothing; `seconds` is how long an answer is waited for."""
        self._planner = planner
        self._seconds = seconds
        self._asked: Future[SettingsDict | None] | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cost")

    def begin(self) -> None:
        """Let the planner start before the first request comes."""
        if self._planner is not None:
            self._asked = self._pool.submit(self._planner.cost, {"prompt": ""})

    def of(self, document: SettingsView) -> SettingsDict | None:
        """What a request takes; None where that is not known in time.

        Raises:
            MuybridgeError: it cannot be carried out.
        """
        if self._planner is None:
            return None
        if (found := self._planner.known(document)) is not None:
            return found
        with self._lock:
            if self._asked is not None and not self._asked.done():
                return None  # to wait for what another asked would only hold up a thread; a worker will tell
            answer = self._asked = self._pool.submit(self._planner.cost, document)
        try:
            return answer.result(self._seconds)
        except TimeoutError:
            logger.info("a request is accepted before its cost is known")
            return None

    def close(self) -> None:
        """Ask nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
