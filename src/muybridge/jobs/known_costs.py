"""What requests cost, kept by all that decides it, and what is said of one that costs too much."""

from __future__ import annotations

import json
from collections import OrderedDict

from muybridge.types import SettingsDict, SettingsView

_MOST = 1000
_IRRELEVANT = ("prompt", "negative_prompt")
"""Words cost the same whatever they say."""


class KnownCosts:
    """Costs of requests that were planned, the latest thousand of them."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._costs: OrderedDict[str, SettingsDict] = OrderedDict()

    def of(self, document: SettingsView) -> SettingsDict | None:
        """That of a public request, or of one that differs in words and seed only; None where none was planned."""
        return self._costs.get(_key(document))

    def keep(self, document: SettingsView, cost: SettingsDict) -> None:
        """Know it from now on."""
        self._costs[_key(document)] = cost
        if len(self._costs) > _MOST:
            self._costs.popitem(last=False)


def refusal_of(cost: SettingsView | None, whose: str = "the service") -> str | None:
    """Why a request is not carried out, with the least that would do; None where it fits, or nobody knows.

    `whose` memory it would have to fit into.
    """
    if cost is None or cost.get("fits", True):
        return None
    least = f" {cost['least']}" if cost.get("least") else ""
    return f"This needs more memory than {whose} has.{least}"


def _key(document: SettingsView) -> str:
    """What decides the cost."""
    relevant = {name: value for name, value in document.items() if name not in _IRRELEVANT}
    sampling = {name: value for name, value in (document.get("sampling") or {}).items() if name != "seed"}
    return json.dumps({**relevant, "sampling": sampling}, sort_keys=True, default=str)
