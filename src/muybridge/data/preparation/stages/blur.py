"""How sharp a clip is; for reports, as plain subjects have as little detail as blurred ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from muybridge.data.preparation.looks import look_at
from muybridge.data.preparation.stage import Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record


class BlurSettings(StageSettings):
    """How much detail there must be."""

    min_detail: float | None = Field(default=None, ge=0)
    """Least detail; nothing is dropped by default, as it says something only among clips of one source."""


@register_stage("blur")
class Blur(Stage):
    """Measures detail: the variance of the Laplacian at 320 pixels, its mean over the frames."""

    Settings = BlurSettings
    settings: BlurSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_detail",))
    needs: ClassVar[frozenset[str]] = frozenset(("width", "height"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end", "crop"))
    gives: ClassVar[frozenset[str]] = frozenset(("detail",))

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with `detail`. Raises Refused: it cannot be read."""
        frames = look_at(record).frames.astype(np.float32)
        if min(frames.shape[1:]) < 3:
            return [record]
        middle = frames[:, 1:-1, 1:-1]
        around = frames[:, :-2, 1:-1] + frames[:, 2:, 1:-1] + frames[:, 1:-1, :-2] + frames[:, 1:-1, 2:]
        return [noted(record, detail=round(float((around - 4 * middle).var((1, 2)).mean()), 3))]

    def rules(self) -> Sequence[Rule]:
        """How little is blurred."""
        return (Rule("blur", "detail", "detail", least=self.settings.min_detail),)
