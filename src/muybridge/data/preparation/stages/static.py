"""Clips in which nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from muybridge.data.preparation.looks import look_at
from muybridge.data.preparation.stage import Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record

_APART = 2  # frames of a look: a quarter of a second


class StaticSettings(StageSettings):
    """How much must change."""

    min_change: float = Field(default=0.15, ge=0)
    """Mean difference, of 255, of what lies a quarter of a second apart."""


@register_stage("static")
class Static(Stage):
    """Measures how much brightness changes, whether by motion or by light."""

    Settings = StaticSettings
    settings: StaticSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_change",))
    needs: ClassVar[frozenset[str]] = frozenset(("duration", "fps", "width", "height"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end", "crop"))
    gives: ClassVar[frozenset[str]] = frozenset(("change",))

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with `change`. Raises Refused: it cannot be read."""
        if record.kind != "video":
            return [record]
        frames = look_at(record).frames.astype(np.int16)
        apart = min(_APART, len(frames) - 1)
        change = np.abs(frames[apart:] - frames[:-apart]).mean() if apart else 0.0
        return [noted(record, change=round(float(change), 4))]

    def rules(self) -> Sequence[Rule]:
        """How little is static."""
        return (Rule("static", "change", "change of brightness in a quarter of a second", self.settings.min_change),)
