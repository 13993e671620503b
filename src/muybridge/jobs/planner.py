"""What requests cost, asked of a process that knows networks, so that the one that answers clients need not."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading

from muybridge.errors import ConfigError
from muybridge.jobs.known_costs import KnownCosts
from muybridge.jobs.process_settings import ServiceSettings
from muybridge.types import SettingsDict, SettingsView

_log = logging.getLogger(__name__)
_START_S = 120.0
_ANSWER_S = 20.0


class Planner:
    """Costs of requests; the process is started with the first question, and again where it died."""

    def __init__(self, settings: ServiceSettings, device: str | None = None) -> None:
        """Of the service that requests are for, on a device; by default the best there is."""
        self._settings = settings
        self._device = device or ""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._is_closed = False
        self._known = KnownCosts()

    def cost(self, document: SettingsView) -> SettingsDict | None:
        """What a public request takes: `peak_bytes`, `budget_bytes`, `fits` and `least`, as of `service.engine.Cost`.

        Returns:
            None where it cannot be told in time.

        Raises:
            ConfigError: the request cannot be carried out at all, in the engine's words.
        """
        with self._lock:
            cost = self._known.of(document)
            if cost is None:
                cost = self._asked(document)
                if cost is None:
                    return None
                if "error" in cost:  # not kept: its cause may go, as a file that is missing does
                    raise ConfigError(cost["error"])
                self._known.keep(document, cost)
            return cost

    def known(self, document: SettingsView) -> SettingsDict | None:
        """What was told before of such a request; never waits."""
        return self._known.of(document)

    def close(self) -> None:
        """End the process, also while it is asked something; nothing is known any more."""
        self._is_closed = True
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for its answer, and holds the lock, hears of the end
        with self._lock:
            self._end()

    def _asked(self, document: SettingsView) -> SettingsDict | None:
        if self._is_closed:
            return None
        is_new = self._process is None or self._process.poll() is not None
        if is_new:
            self._start()
        process = self._process
        if process is None or process.stdin is None:
            return None
        try:
            process.stdin.write(json.dumps(dict(document)) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=_START_S if is_new else _ANSWER_S)
            if line is None:
                raise OSError("the process ended")
            return json.loads(line)
        except (OSError, queue.Empty, ValueError) as error:
            _log.warning("The cost of a request could not be told: %s", type(error).__name__)
            self._end()
            return None

    def _start(self) -> None:
        self._end()
        self._answers = queue.Queue()
        process = subprocess.Popen(
            [sys.executable, "-m", "muybridge.jobs.planner_process", self._device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # it calculates next to nothing
            text=True,
        )
        self._process = process
        if self._is_closed:  # since it was looked at
            process.kill()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(self._settings.to_line())
                process.stdin.flush()
        threading.Thread(target=_read, args=(process, self._answers), daemon=True).start()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()


def _read(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
    """Pass answers on, and None once there will be no more."""
    try:
        if process.stdout is not None:
            with process.stdout:
                for line in process.stdout:
                    answers.put(line)
    finally:
        answers.put(None)
