"""How large gradients and updates are while training goes on, and a word where they should not be so."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from muybridge.training.monitoring.curves import Curve
from muybridge.training.monitoring.findings import Finding, UpdateCurves, update_findings
from muybridge.training.monitoring.observing import ObservedTrainer, Update, checked_interval

logger = logging.getLogger(__name__)

_VALUES = "gradient_norm", "update_ratio", "clipped_share"
_LOOKS = 3


class UpdateSizes:
    """An observer that logs what each group of weights got, as `gradient_norm/NAME` and so on.

    What is wrong is said once, after three looks.
    """

    wants_updates = True

    def __init__(self, every: int, warmup: int = 0) -> None:
        """Look every so many steps; sizes of updates count after `warmup` steps.

        Raises:
            ConfigError: `every` is below 1.
        """
        self.every = checked_interval(every)
        self._warmup = warmup
        self._looks: dict[int, Mapping[str, Update]] = {}
        self._newest: Mapping[str, Update] | None = None
        self._said: set[str] = set()

    def observe(self, trainer: ObservedTrainer, step: int) -> dict[str, float]:
        """Sizes of the last update; nothing before the first."""
        update = trainer.last_update
        if step == 0 or not update or update is self._newest:  # at the end it may be one that was seen already
            return {}
        self._newest = update
        self._looks[step] = dict(update)
        if len(self._looks) >= _LOOKS:
            self._warn(step)
        return {f"{value}/{name}": getattr(u, value) for value in _VALUES for name, u in update.items()}

    def findings(self) -> list[Finding]:
        """What is wrong."""
        return update_findings({name: self._curves(name) for name in self._names()}, self._warmup)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for look in self._looks.values() for name in look))

    def _curves(self, name: str) -> UpdateCurves:
        looks = {step: look[name] for step, look in self._looks.items() if name in look}
        curves = (Curve(tuple(looks), tuple(getattr(look, value) for look in looks.values())) for value in _VALUES)
        return UpdateCurves(*curves)

    def _warn(self, step: int) -> None:
        for finding in self.findings():
            if finding.kind not in self._said:
                self._said.add(finding.kind)
                logger.warning("step %d: %s", step, finding.text)
