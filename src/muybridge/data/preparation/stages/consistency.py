"""Whether a clip stays with what it shows, by a model of pictures: what the search for cuts missed is found here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.picture_model import PictureModelSettings, PictureModelStage
from muybridge.data.preparation.stage import Rule, noted, register_stage
from muybridge.data.record import Record

_DIGITS = 4


class ConsistencySettings(PictureModelSettings):
    """Which model."""

    frames: int = Field(default=4, ge=2, le=64)
    """Evenly spaced in time, the first and the last among them; each is compared with the next."""
    min_similarity: float | None = None
    """Least cosine of two of them; EasyAnimate has .8, with CLIP, for the key frames of a clip."""


@register_stage("consistency")
class Consistency(PictureModelStage):
    """Gives `extra` `consistency` with `least`, the least cosine of a frame and the next, of videos."""

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
        vectors = model.of_pictures(self.frames_of(record, self.settings.frames))
        cosines = (vectors[1:] * vectors[:-1]).sum(axis=-1)
        return [noted(record, consistency={"least": round(float(cosines.min()), _DIGITS)})]

    def rules(self) -> Sequence[Rule]:
        """The least cosine."""
        least = self.settings.min_similarity
        return (Rule("consistency", "consistency.least", "likeness of a frame and the next", least=least),)
