"""Whether a clip ends where it began, by a model of pictures: what the search for cuts missed is told by its ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from muybridge.data.preparation.picture_model import PictureModelSettings, PictureModelStage
from muybridge.data.preparation.stage import Rule, noted, register_stage
from muybridge.data.record import Record

_DIGITS = 4


class ConsistencySettings(PictureModelSettings):
    """Which model."""

    min_similarity: float | None = None
    """Least cosine of the first and the last frame; EasyAnimate keeps .8 and more, with CLIP."""


@register_stage("consistency")
class Consistency(PictureModelStage):
    """Gives `extra` `consistency` with `ends`, the cosine of the first and the last frame, of videos."""

    Settings = ConsistencySettings
    settings: ConsistencySettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_similarity", "device"))
    needs: ClassVar[frozenset[str]] = frozenset(("duration",))
    uses: ClassVar[frozenset[str]] = frozenset(("crop",))
    gives: ClassVar[frozenset[str]] = frozenset(("consistency",))

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with its score; a picture as it is.

        Raises:
            Refused: its file cannot be read.
        """
        model = self.model
        if record.kind == "image":
            return [record]
        first, last = model.of_pictures(self.frames_of(record, 2))
        return [noted(record, consistency={"ends": round(float(first @ last), _DIGITS)})]

    def rules(self) -> Sequence[Rule]:
        """The cosine."""
        least = self.settings.min_similarity
        return (Rule("consistency", "consistency.ends", "likeness of first and last frame", least=least),)
