"""What requests cost, asked of a process that knows networks, so that the one that answers clients need not."""

from __future__ import annotations

import json
import logging
import threading

from muybridge.errors import ConfigError
from muybridge.jobs.known_costs import KnownCosts
from muybridge.jobs.line_process import LineProcess
from muybridge.jobs.process_settings import ServiceSettings
from muybridge.types import SettingsDict, SettingsView

_log = logging.getLogger(__name__)
_START_S = 120.0
_ANSWER_S = 20.0
_MODULE = "muybridge.jobs.planner_process"


class Planner:
    """Costs of requests; the process is started with the first question, and again where it died."""

    def __init__(self, settings: ServiceSettings, device: str | None = None) -> None:
        """Of the service that requests are for, on a device; by default the best there is."""
        self._asked = LineProcess((_MODULE, device or ""), settings.to_line(), _START_S, _ANSWER_S)
        self._lock = threading.Lock()
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
                cost = self._answer(document)
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
        self._asked.stop()  # whoever waits for its answer, and holds the lock, hears of the end
        with self._lock:
            self._asked.end()

    def _answer(self, document: SettingsView) -> SettingsDict | None:
        line = self._asked.ask(json.dumps(dict(document)))
        if line is None:
            return None
        try:
            return json.loads(line)
        except ValueError:
            _log.warning("The cost of a request could not be told: its planner printed something else")
            self._asked.end()
            return None
