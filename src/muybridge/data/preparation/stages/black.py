"""Clips that show nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from muybridge.data.preparation.looks import look_at
from muybridge.data.preparation.stage import Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record

_DARK_MEAN, _DARK_BRIGHTEST, _FLAT = 8.0, 24.0, 4.0


class BlackSettings(StageSettings):
    """How much may be empty."""

    max_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the frames that are black or of one shade."""


@register_stage("black")
class Black(Stage):
    """Counts frames that are black (mean brightness under 8, or all but 5 % under 24, of 255) or of one shade."""

    Settings = BlackSettings
    settings: BlackSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("max_share",))
    needs: ClassVar[frozenset[str]] = frozenset(("width", "height"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end", "crop"))
    gives: ClassVar[frozenset[str]] = frozenset(("empty",))

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with `empty`. Raises Refused: it cannot be read."""
        frames = look_at(record).frames
        flat = frames.reshape(len(frames), -1)
        low, high = np.percentile(flat, (5, 95), axis=1)
        empty = (flat.mean(1) < _DARK_MEAN) | (high < _DARK_BRIGHTEST) | (high - low < _FLAT)
        return [noted(record, empty=round(float(empty.mean()), 4))]

    def rules(self) -> Sequence[Rule]:
        """How much may be empty."""
        return (Rule("black", "empty", "share of empty frames", most=self.settings.max_share),)
