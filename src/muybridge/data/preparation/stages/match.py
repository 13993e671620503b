"""How well captions fit what is seen, by a model of pictures and text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.captioning.model_folder import check_model_folder, folder_digest
from muybridge.data.preparation.embedding import EmbeddingModel
from muybridge.data.preparation.spread_frames import spread_frames
from muybridge.data.preparation.stage import Refused, Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError

_SIDE = 768  # of frames; models look at less
_DIGITS = 4


class MatchSettings(StageSettings):
    """Which model."""

    model: str | None = None
    """The folder of a model of the kind of CLIP or SigLIP, as transformers saves it."""
    frames: int = Field(default=1, ge=1, le=64)
    """That are compared with the caption: the one in the middle, or several evenly spaced in time."""
    device: str | None = None
    """To run on; a GPU where there is one, if not given."""
    min_match: float | None = None
    """Least mean cosine over the frames; what is usual differs between models."""


@register_stage("match")
class Match(Stage):
    """Gives `extra` `match` with `mean`, of clips that have a caption."""

    Settings = MatchSettings
    settings: MatchSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_match", "device"))
    needs: ClassVar[frozenset[str]] = frozenset(("duration", "text"))
    uses: ClassVar[frozenset[str]] = frozenset(("crop",))
    gives: ClassVar[frozenset[str]] = frozenset(("match",))
    of_kept = True

    def __init__(self, settings: StageSettings | None = None) -> None:
        """With settings, of which the folder is looked at."""
        super().__init__(settings)
        self._model: EmbeddingModel | None = None
        if self.settings.model is not None:
            check_model_folder(self.settings.model, "match.model")

    def idle_reason(self) -> str | None:
        """No model."""
        return None if self.settings.model is not None else "no model is named (match.model=FOLDER)"

    def load(self) -> None:
        """Load it.

        Raises:
            CheckpointError: the folder holds no such model.
        """
        self._model = EmbeddingModel(self._folder(), True, self.settings.device)

    def digest(self) -> str:
        """Of the model."""
        return self._of_model

    @cached_property
    def _of_model(self) -> str:
        return folder_digest(self._folder())

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with its score; without a caption as it is.

        Raises:
            Refused: its file cannot be read.
        """
        if self._model is None:
            raise ConfigError("match was not loaded.")
        if not record.text.strip():
            return [record]
        try:
            frames = spread_frames(record, self.settings.frames, _SIDE)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error
        cosines = self._model.of_pictures(frames) @ self._model.of_text(record.text)
        return [noted(record, match={"mean": round(float(cosines.mean()), _DIGITS)})]

    def rules(self) -> Sequence[Rule]:
        """The mean."""
        return (Rule("match", "match.mean", "fit of caption and picture", least=self.settings.min_match),)

    def _folder(self) -> Path:
        if self.settings.model is None:
            raise ConfigError(f"match: {self.idle_reason()}.")
        return check_model_folder(self.settings.model, "match.model")
