"""The ends of pieces, where what was before or comes after may still be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.stage import Refused, Rule, Stage, StageSettings, register_stage
from muybridge.data.record import ContentIds, Record
from muybridge.errors import InputFileError
from muybridge.video.frame_times import frame_times

_DIGITS = 6
_EARLY_S = 1e-3


class TrimSettings(StageSettings):
    """How much is left out."""

    frames: int = Field(default=2, ge=0)
    """At each end where a scene was cut; ends of files stay."""
    min_seconds: float = Field(default=0.5, ge=0)
    """That must be left."""


@register_stage("trim")
class Trim(Stage):
    """Moves start and end to frames further inside."""

    Settings = TrimSettings
    settings: TrimSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_seconds",))
    needs: ClassVar[frozenset[str]] = frozenset(("duration", "frames"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end"))
    gives: ClassVar[frozenset[str]] = frozenset(("start", "end", "frames"))

    def run(self, record: Record, work: Path) -> list[Record]:
        """The shorter record. Raises Refused: nothing is left, or its file cannot be read."""
        whole = record.extra["duration"] if record.kind == "video" else 0.0
        at_start = record.kind == "video" and record.start > _EARLY_S
        at_end = record.kind == "video" and record.end is not None and record.end < whole - _EARLY_S
        if not self.settings.frames or not (at_start or at_end):
            return [record]
        try:
            times = frame_times(record.source, record.fps)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error
        end = whole if record.end is None else record.end
        inside = [time for time in times if record.start - _EARLY_S <= time < end - _EARLY_S]
        first = self.settings.frames if at_start else 0
        after = len(inside) - (self.settings.frames if at_end else 0)
        if after <= first:
            raise Refused("short-trimmed", f"Nothing is left of its {len(inside)} frames.")
        start = round(inside[first], _DIGITS) if at_start else record.start
        new_end = round(inside[after], _DIGITS) if at_end else record.end
        new_id = ContentIds()(record.media, record.extra, start, new_end)
        return [replace(record, id=new_id, start=start, end=new_end, frames=after - first)]

    def rules(self) -> Sequence[Rule]:
        """What must be left."""
        return (Rule("short-trimmed", "duration_s", "seconds after trimming", least=self.settings.min_seconds),)
