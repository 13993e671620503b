"""What stages have in common that look at clips with a model of pictures and text in a folder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

from PIL import Image

from muybridge.data.preparation.captioning.model_folder import check_model_folder, folder_digest
from muybridge.data.preparation.embedding import EmbeddingModel
from muybridge.data.preparation.spread_frames import spread_frames
from muybridge.data.preparation.stage import Refused, Stage, StageSettings
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError

_SIDE = 768  # of frames; models look at less


class PictureModelSettings(StageSettings):
    """Which model."""

    model: str | None = None
    """The folder of a model of the kind of CLIP or SigLIP, as transformers saves it."""
    device: str | None = None
    """To run on; a GPU where there is one, if not given."""


class PictureModelStage(Stage):
    """A stage that is left out where no model is named."""

    Settings = PictureModelSettings
    of_kept = True
    has_text: ClassVar[bool] = False
    """Whether the model's half for texts is needed."""

    def __init__(self, settings: StageSettings | None = None) -> None:
        """With settings, of which the folder is looked at."""
        super().__init__(settings)
        self._loaded: EmbeddingModel | None = None
        if self._choice.model is not None:
            check_model_folder(self._choice.model, f"{self.name}.model")

    @property
    def _choice(self) -> PictureModelSettings:
        return cast("PictureModelSettings", self.settings)

    def idle_reason(self) -> str | None:
        """No model."""
        return None if self._choice.model is not None else f"no model is named ({self.name}.model=FOLDER)"

    def load(self) -> None:
        """Load it.

        Raises:
            CheckpointError: the folder holds no such model.
        """
        self._loaded = EmbeddingModel(self._folder(), self.has_text, self._choice.device)

    def digest(self) -> str:
        """Of the model."""
        return self._of_model

    @cached_property
    def _of_model(self) -> str:
        return folder_digest(self._folder())

    @property
    def model(self) -> EmbeddingModel:
        """That is loaded."""
        if self._loaded is None:
            raise ConfigError(f"{self.name} was not loaded.")
        return self._loaded

    def frames_of(self, record: Record, count: int) -> list[Image.Image]:
        """So many frames, evenly spaced in time.

        Raises:
            Refused: its file cannot be read.
        """
        try:
            return spread_frames(record, count, _SIDE)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error

    def _folder(self) -> Path:
        if self._choice.model is None:
            raise ConfigError(f"{self.name}: {self.idle_reason()}.")
        return check_model_folder(self._choice.model, f"{self.name}.model")
