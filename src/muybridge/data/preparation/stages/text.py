"""How much of the picture is writing, by rapidocr."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field

from muybridge.data.preparation.spread_frames import spread_frames
from muybridge.data.preparation.stage import Refused, Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError

_SIDE = 960
_DIGITS = 5
_WHOLE = 0.9
"""Share of the picture from which a box is no line of writing, but a pattern that looks like it."""
_NOT_THERE = "rapidocr is not installed (pip install 'muybridge[data]')"


class TextSettings(StageSettings):
    """How writing is looked for."""

    frames: int = Field(default=3, ge=1, le=16)
    """That are looked at, evenly spaced in time; of one the middle."""
    max_area: float = Field(default=0.02, ge=0, le=1)
    """Most share of the picture that is writing, in the frame with the most: titles count as well as what is burnt
    in."""
    max_burnt_in: float | None = Field(default=None, ge=0, le=1)
    """Likewise in the frame with the least: what stays all the time, as subtitles and watermarks do."""


@register_stage("text")
class Text(Stage):
    """Gives `extra` `text_area` with `most` and `least` over some frames."""

    Settings = TextSettings
    settings: TextSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("max_area", "max_burnt_in"))
    needs: ClassVar[frozenset[str]] = frozenset(("duration",))
    uses: ClassVar[frozenset[str]] = frozenset(("crop",))
    gives: ClassVar[frozenset[str]] = frozenset(("text_area",))
    of_kept = True

    def __init__(self, settings: StageSettings | None = None) -> None:
        """With settings."""
        super().__init__(settings)
        self._engine: Any = None

    def idle_reason(self) -> str | None:
        """No rapidocr."""
        return None if importlib.util.find_spec("rapidocr") else _NOT_THERE

    def load(self) -> None:
        """Load the models that rapidocr brings.

        Raises:
            ConfigError: it is not installed, or cannot be loaded.
        """
        try:
            from rapidocr import RapidOCR  # pyright: ignore[reportMissingImports]

            quiet = {"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": 1}
            self._engine = RapidOCR(params=quiet)
        except ModuleNotFoundError as error:
            raise ConfigError(f"text: {_NOT_THERE}: {error}. Or leave it out: text=off.") from error
        except Exception as error:  # it raises whatever its parts do
            raise ConfigError(f"text: rapidocr cannot be loaded: {type(error).__name__}: {error}.") from error

    def digest(self) -> str:
        """Its version, which its models come with."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("rapidocr")
        except PackageNotFoundError:
            return ""

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with the shares.

        Raises:
            Refused: its file cannot be read.
        """
        if self._engine is None:
            raise ConfigError("text was not loaded.")
        try:
            frames = spread_frames(record, self.settings.frames, _SIDE)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error
        areas = [self._area(frame) for frame in frames]
        return [noted(record, text_area={"most": round(max(areas), _DIGITS), "least": round(min(areas), _DIGITS)})]

    def rules(self) -> Sequence[Rule]:
        """The largest and the smallest share."""
        what = "share of the picture that is writing"
        return (
            Rule("text", "text_area.most", what, most=self.settings.max_area),
            Rule("burnt-in-text", "text_area.least", f"{what} all the time", most=self.settings.max_burnt_in),
        )

    def _area(self, frame: Image.Image) -> float:
        blue_first = np.ascontiguousarray(np.asarray(frame)[..., ::-1])
        boxes = self._engine(blue_first, use_det=True, use_cls=False, use_rec=False).boxes
        if boxes is None:
            return 0.0
        # Filled rather than added up: boxes may overlap.
        mask = Image.new("1", frame.size)
        draw = ImageDraw.Draw(mask)
        for box in boxes:
            width, height = np.ptp(box, axis=0)
            if width * height < _WHOLE * frame.width * frame.height:
                draw.polygon([(float(x), float(y)) for x, y in box], fill=1)
        return float(np.asarray(mask).mean())
