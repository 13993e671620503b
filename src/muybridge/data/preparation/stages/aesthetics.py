"""How good a clip looks, by a head over a model of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.captioning.model_folder import check_model_folder, file_ends, folder_digest
from muybridge.data.preparation.embedding import EmbeddingModel, LinearHead
from muybridge.data.preparation.spread_frames import spread_frames
from muybridge.data.preparation.stage import Refused, Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record
from muybridge.errors import CheckpointError, ConfigError, InputFileError

_SIDE = 768  # of frames; models look at less
_DIGITS = 4


class AestheticsSettings(StageSettings):
    """Which model and head."""

    model: str | None = None
    """The folder of a model of the kind of CLIP or SigLIP, as transformers saves it."""
    head: str | None = None
    """A weight file of linear layers from its vectors to one number, trained on this model."""
    frames: int = Field(default=4, ge=1, le=64)
    """That are judged, evenly spaced in time."""
    device: str | None = None
    """To run on; a GPU where there is one, if not given."""
    min_score: float | None = None
    """Least mean over the frames, on the head's own scale."""


@register_stage("aesthetics")
class Aesthetics(Stage):
    """Gives `extra` `aesthetics` with `mean` and `least` over some frames."""

    Settings = AestheticsSettings
    settings: AestheticsSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_score", "device"))
    needs: ClassVar[frozenset[str]] = frozenset(("duration",))
    uses: ClassVar[frozenset[str]] = frozenset(("crop",))
    gives: ClassVar[frozenset[str]] = frozenset(("aesthetics",))
    of_kept = True

    def __init__(self, settings: StageSettings | None = None) -> None:
        """With settings, of which folder and file are looked at."""
        super().__init__(settings)
        self._model: EmbeddingModel | None = None
        self._head: LinearHead | None = None
        if self.settings.model is not None:
            check_model_folder(self.settings.model, "aesthetics.model")
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
        folder, head = self._files()
        self._model, self._head = EmbeddingModel(folder, False, self.settings.device), LinearHead(head)

    def digest(self) -> str:
        """Of model and head."""
        return self._of_files

    @cached_property
    def _of_files(self) -> str:
        folder, head = self._files()
        return f"{folder_digest(folder)} {file_ends(head).hex()}"

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with its scores.

        Raises:
            Refused: its file cannot be read.
            CheckpointError: the head is of another model.
        """
        if self._model is None or self._head is None:
            raise ConfigError("aesthetics was not loaded.")
        try:
            frames = spread_frames(record, self.settings.frames, _SIDE)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error
        vectors = self._model.of_pictures(frames)
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

    def _files(self) -> tuple[Path, Path]:
        if self.settings.model is None or self.settings.head is None:
            raise ConfigError(f"aesthetics: {self.idle_reason()}.")
        return check_model_folder(self.settings.model, "aesthetics.model"), Path(self.settings.head).expanduser()
