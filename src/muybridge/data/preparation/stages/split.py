"""Videos to pieces of one scene each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from muybridge.data.preparation.cuts import Scan, scan
from muybridge.data.preparation.detectors import DETECTOR_PACKAGES, DetectorName, cut_detectors
from muybridge.data.preparation.stage import ALMOST_S, Refused, Rule, Stage, StageSettings, noted, register_stage
from muybridge.data.record import ContentIds, Record
from muybridge.errors import ConfigError, InputFileError

_DIGITS = 6  # of seconds
_WORST_SHARE = 0.01


class SplitSettings(StageSettings):
    """Where videos are cut."""

    detector: DetectorName = "scdet"
    """scdet (FFmpeg's, hard cuts), adaptive (scenedetect's, the same by other means), transnetv2 (a network, which
    finds dissolves too, for ten times the time), or both (scdet and transnetv2)."""
    threshold: float | None = Field(default=None, gt=0)
    """From which a cut is one, in the detector's own scale: 10 of 100 for scdet, 3 for adaptive, 0.25 of 1 for
    transnetv2 and both."""
    flashes: bool = False
    """Whether flashes of up to 3 frames count as cuts."""
    max_seconds: float = Field(default=10.0, gt=0)
    """Longer scenes are cut into pieces of equal length."""
    min_seconds: float = Field(default=2.0, ge=0)
    """Shorter pieces are dropped."""


@register_stage("split")
class Split(Stage):
    """Finds cuts by decoding everything once; with it, what is damaged in the middle of a file.

    Each piece gets `scene_seconds`, which later stages may make shorter.
    """

    version = 4
    Settings = SplitSettings
    settings: SplitSettings
    thresholds: ClassVar[frozenset[str]] = frozenset(("min_seconds",))
    needs: ClassVar[frozenset[str]] = frozenset(("duration", "fps", "frames"))
    gives: ClassVar[frozenset[str]] = frozenset(("start", "end", "frames", "scene", "scene_seconds"))

    @property
    def has_model(self) -> bool:
        """No: its networks are small."""
        return False

    def digest(self) -> str:
        """Of the packages that find cuts, as far as they are installed."""
        return " ".join(map(_version, DETECTOR_PACKAGES[self.settings.detector]))

    def load(self) -> None:
        """Raises ConfigError: the detector is not installed."""
        self._detectors = cut_detectors(self.settings.detector, self.settings.threshold)

    def run(self, record: Record, work: Path) -> list[Record]:
        """A record for each piece.

        Raises:
            Refused: damaged, or cut short.
        """
        if record.kind != "video":
            return [record]
        try:
            found = self._scan(record)
        except InputFileError as error:
            raise Refused(error.fault, str(error), "unreadable") from error
        _check_sound(record, found)
        return self._pieces(record, found)

    def rules(self) -> Sequence[Rule]:
        """How short a piece may be."""
        return (
            Rule(
                "short-scene", "scene_seconds", "seconds of one scene", least=self.settings.min_seconds, slack=ALMOST_S
            ),
        )

    def _scan(self, record: Record) -> Scan:
        if not hasattr(self, "_detectors"):
            raise ConfigError("The stage split must be loaded before it runs.")
        span = (record.start, record.end)
        return scan(record.source, self._detectors(), span, record.fps, not self.settings.flashes)

    def _pieces(self, record: Record, found: Scan) -> list[Record]:
        end_s = record.start + (record.duration_s or 0.0)
        times = [*found.times, max(end_s, found.times[-1])]
        scenes = found.scenes()
        spans = [(number, span) for number, scene in enumerate(scenes) for span in self._parts(scene, times)]
        if spans == [(0, (0, len(found.times)))]:
            seconds = record.duration_s
            return [record if seconds is None else noted(record, scene_seconds=round(seconds, _DIGITS))]
        ids = ContentIds()
        return [_piece(record, span, times, number, ids) for number, span in spans]

    def _parts(self, scene: tuple[int, int], times: Sequence[float]) -> list[tuple[int, int]]:
        first, after = scene
        seconds = times[after] - times[first]
        count = max(1, math.ceil((seconds - ALMOST_S) / self.settings.max_seconds))
        marks = [first]
        for part in range(1, count):
            wanted = times[first] + seconds * part / count
            marks.append(min(range(marks[-1], after), key=lambda index: abs(times[index] - wanted)))
        return [(a, b) for a, b in zip(marks, [*marks[1:], after], strict=True) if b > a]


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _check_sound(record: Record, found: Scan) -> None:
    if found.num_bad > _WORST_SHARE * found.num_packets:
        raise Refused("damaged", f"{found.num_bad} of its {found.num_packets} packets are damaged.", "unreadable")
    # How many frames a part has, is known of files of a constant rate only.
    if not found.times or (not record.is_part and len(found.times) < (record.frames or 0) * (1 - _WORST_SHARE) - 1):
        raise Refused(
            "broken-tail", f"Of its {record.frames} frames only {len(found.times)} can be decoded.", "unreadable"
        )


def _piece(record: Record, span: tuple[int, int], times: Sequence[float], scene: int, ids: ContentIds) -> Record:
    start, end = (round(times[index], _DIGITS) for index in span)
    return replace(
        record,
        id=ids(record.media, record.extra, start, end),
        start=start,
        end=end,
        frames=span[1] - span[0],
        extra={
            **record.extra,
            "scene": {"of": record.id, "number": scene},
            "scene_seconds": round(end - start, _DIGITS),
        },
    )
