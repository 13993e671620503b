"""How good a clip looks, by a head over a model of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.captioning.model_folder import file_ends
from muybridge.data.preparation.embedding import LinearHead
from muybridge.data.preparation.picture_model import PictureModelSettings, PictureModelStage
from muybridge.data.preparation.stage import Rule, StageSettings, noted, register_stage
from muybridge.data.record import Record
from muybridge.errors import CheckpointError, ConfigError

_DIGITS = 4


class AestheticsSettings(PictureModelSettings):
    """Which model and head."""

    head: str | None = None
    """A weight file of linear layers from its vectors to one number, trained on this model."""
    frames: int = Field(default=4, ge=1, le=64)
    """That are judged, evenly spaced in time."""
    min_score: float | None = None
    """Least mean over the frames, on the head's own scale."""


@register_stage("aesthetics")
class Aesthetics(PictureModelStage):
    """Gives `extra` `aesthetics` with `mean` and `least` over some frames."""

    Settings = AestheticsSettings
    settings: AestheticsSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_score", "device"))
    needs: ClassVar[frozenset[str]] = frozenset(("duration",))
    uses: ClassVar[frozenset[str]] = frozenset(("crop",))
    gives: ClassVar[frozenset[str]] = frozenset(("aesthetics",))

    def __init__(self, settings: StageSettings | None = None) -> None:
        """With settings, of which folder and file are looked at."""
        super().__init__(settings)
        self._head: LinearHead | None = None
        if self.settings.head is not None and not Path(self.settings.head).expanduser().is_file():
            raise ConfigError(f"aesthetics.head must be a weight file; there is no file {self.settings.head}.")

    def idle_reason(self) -> str | None:
        """No model, or no head."""
        if self.settings.model is not None and self.settings.head is not None:
            return None
        return "no model and head are named (aesthetics.model=FOLDER, aesthetics.head=FILE)"

    def load(self) -> None:
        """Load both.

        Raises:
            CheckpointError: one of them is not what it should be, or they do not fit.
        """
        super().load()
        self._head = LinearHead(self._head_file())

    def digest(self) -> str:
        """Of model and head."""
        return self._of_files

    @cached_property
    def _of_files(self) -> str:
        return f"{super().digest()} {file_ends(self._head_file()).hex()}"

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with its scores.

        Raises:
            Refused: its file cannot be read.
            CheckpointError: the head is of another model.
        """
        if self._head is None:
            raise ConfigError("aesthetics was not loaded.")
        vectors = self.model.of_pictures(self.frames_of(record, self.settings.frames))
        if vectors.shape[-1] != self._head.width:
            raise CheckpointError(
                f"The head takes vectors of {self._head.width} numbers, and the model gives {vectors.shape[-1]}: it is "
                "of another model."
            )
        scores = self._head(vectors)
        found = {"mean": round(float(scores.mean()), _DIGITS), "least": round(float(scores.min()), _DIGITS)}
        return [noted(record, aesthetics=found)]

    def rules(self) -> Sequence[Rule]:
        """The mean."""
        return (Rule("aesthetics", "aesthetics.mean", "aesthetic score", least=self.settings.min_score),)

    def _head_file(self) -> Path:
        if self.settings.head is None:
            raise ConfigError(f"aesthetics: {self.idle_reason()}.")
        return Path(self.settings.head).expanduser()
