"""What a file really holds; those that cannot be used, or are too small or short, end here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.stage import ALMOST_S, Refused, Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.probe import ProbeSettings, probe
from muybridge.data.record import Record, Refusal

_USABLE = frozenset(("hdr", "too-large", "empty-part"))
"""Rules by which a file that plays is not wanted."""


class ProbeStageSettings(StageSettings):
    """Which files are let through."""

    min_side: int = Field(default=256, ge=0)
    """Pixels of the shorter side."""
    min_seconds: float = Field(default=1.0, ge=0)
    """That a video lasts."""
    max_pixels: int = Field(default=40_000_000, ge=1)
    """Of a frame; larger ones are refused before they are decoded."""
    hdr: bool = False
    """Whether videos of high dynamic range are taken, with the pale colours that they are read with."""
    every_frame: bool = False
    """Whether all of a file is decoded, to find damage in its middle, which `split` finds too; otherwise its first
    frame is, and packets are looked through."""


@register_stage("probe")
class Probe(Stage):
    """Fills in size, rate, frames and duration, which stays as `file_seconds` where a clip becomes another file."""

    version = 2
    Settings = ProbeStageSettings
    settings: ProbeStageSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_side", "min_seconds"))
    gives: ClassVar[frozenset[str]] = frozenset(("width", "height", "fps", "frames", "duration", "file_seconds"))

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record as its file is. Raises Refused with the rule of `data.probe.probe`."""
        asked = ProbeSettings(self.settings.max_pixels, self.settings.hdr, self.settings.every_frame)
        found = probe(record, asked)
        if isinstance(found, Refusal):
            raise Refused(found.rule, found.reason, "dropped" if found.rule in _USABLE else "unreadable")
        seconds = found.extra.get("duration") if found.kind == "video" else None
        return [found if seconds is None else noted(found, file_seconds=seconds)]

    def rules(self) -> Sequence[Rule]:
        """Sides and seconds."""
        return (
            Rule("small", "width", "pixels of its width", least=self.settings.min_side),
            Rule("small", "height", "pixels of its height", least=self.settings.min_side),
            Rule("short", "file_seconds", "seconds of its file", least=self.settings.min_seconds, slack=ALMOST_S),
        )
