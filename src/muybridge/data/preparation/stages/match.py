"""How well captions fit what is seen, by a model of pictures and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.picture_model import PictureModelSettings, PictureModelStage
from muybridge.data.preparation.stage import Rule, noted, register_stage
from muybridge.data.record import Record

_DIGITS = 4


class MatchSettings(PictureModelSettings):
    """Which model."""

    frames: int = Field(default=1, ge=1, le=64)
    """That are compared with the caption: the one in the middle, or several evenly spaced in time."""
    min_match: float | None = None
    """Least mean cosine over the frames; what is usual differs between models."""


@register_stage("match")
class Match(PictureModelStage):
    """Gives `extra` `match` with `mean`, of clips that have a caption."""

    Settings = MatchSettings
    settings: MatchSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_match", "device"))
    needs: ClassVar[frozenset[str]] = frozenset(("duration", "text"))
    uses: ClassVar[frozenset[str]] = frozenset(("crop",))
    gives: ClassVar[frozenset[str]] = frozenset(("match",))
    has_text = True

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with its score; without a caption as it is.

        Raises:
            Refused: its file cannot be read.
        """
        model = self.model
        if not record.text.strip():
            return [record]
        cosines = model.of_pictures(self.frames_of(record, self.settings.frames)) @ model.of_text(record.text)
        return [noted(record, match={"mean": round(float(cosines.mean()), _DIGITS)})]

    def rules(self) -> Sequence[Rule]:
        """The mean."""
        return (Rule("match", "match.mean", "fit of caption and picture", least=self.settings.min_match),)
