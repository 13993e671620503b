"""How much a clip moves, and what of it is the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from muybridge.data.preparation.flow import FlowMethod, check_method, flow
from muybridge.data.preparation.looks import Look, look_at
from muybridge.data.preparation.stage import Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import Record
from muybridge.types import SettingsDict

_DIGITS = 4
_EVERY = 2  # pairs that begin at every second frame of a look


class MotionSettings(StageSettings):
    """What is measured, and how much of it is wanted."""

    method: FlowMethod = "blocks"
    """blocks (numpy alone) or dis (OpenCV's, if that is installed; faster, and lost where things move far)."""
    min_speed: float | None = Field(default=0.15, ge=0)
    """Least mean motion in % of the picture's diagonal a second; stills with noise have less than 0.1."""
    max_speed: float | None = Field(default=40.0, gt=0)
    """Most of it."""
    min_pixels: float | None = Field(default=None, ge=0)
    """The same bounds as EasyAnimate has them: pixels of the file in half a second."""
    max_pixels: float | None = Field(default=None, gt=0)
    """Most of it."""


@register_stage("motion")
class Motion(Stage):
    """Follows places of the picture over an eighth of a second, four times a second, in the exact times of the frames.

    `mean` and `p95` are of all places and pairs, in % of the diagonal a second, so they mean the same at any size and
    rate; `camera` is what a pan, a zoom and a roll explain, `object` the rest; `pixels` is the mean in pixels of the
    file in half a second.
    """

    Settings = MotionSettings
    settings: MotionSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_speed", "max_speed", "min_pixels", "max_pixels"))
    needs: ClassVar[frozenset[str]] = frozenset(("duration", "fps", "width", "height"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end", "crop"))
    gives: ClassVar[frozenset[str]] = frozenset(("motion",))

    def load(self) -> None:
        """Raises ConfigError: the method needs what is not installed."""
        check_method(self.settings.method)

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record with `motion`. Raises Refused: it cannot be read."""
        if record.kind != "video":
            return [record]
        return [noted(record, motion={**_measured(look_at(record), self.settings.method)})]

    def rules(self) -> Sequence[Rule]:
        """Bounds on the mean."""
        wanted = self.settings
        return (
            Rule("motion", "motion.mean", "motion, % of the diagonal a second", wanted.min_speed, wanted.max_speed),
            Rule("motion", "motion.pixels", "motion, pixels in half a second", wanted.min_pixels, wanted.max_pixels),
        )


def _measured(look: Look, method: FlowMethod) -> SettingsDict:
    height, width = look.frames.shape[1:]
    percent = 100 / math.hypot(height, width)
    all_moves, camera, rest = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for index in range(0, len(look.times) - 1, _EVERY):
        found = flow(look.frames[index], look.frames[index + 1], method)
        scale = percent / (look.times[index + 1] - look.times[index])
        of_camera = found.camera()
        all_moves.append(np.hypot(*found.moves.T) * scale)
        camera.append(np.hypot(*of_camera.T) * scale)
        rest.append(np.hypot(*(found.moves - of_camera).T) * scale)
    speeds = np.concatenate(all_moves)
    mean = float(speeds.mean()) if len(speeds) else 0.0
    values = {
        "mean": mean,
        "p95": float(np.percentile(speeds, 95)) if len(speeds) else 0.0,
        "camera": float(np.concatenate(camera).mean()) if len(speeds) else 0.0,
        "object": float(np.concatenate(rest).mean()) if len(speeds) else 0.0,
        "pixels": mean / 100 * math.hypot(*look.of_size) / 2,
    }
    return {**{name: round(value, _DIGITS) for name, value in values.items()}, "method": method}
