"""Clips as files of their own, where a list with start and end is not enough."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from muybridge.data.clips import distinct_frames_of, frames_of
from muybridge.data.crop import CROP
from muybridge.data.preparation.stage import Refused, Stage, StageSettings, register_stage
from muybridge.data.record import PACKED, Record
from muybridge.errors import ConfigError, InputFileError
from muybridge.files.atomic import new_file
from muybridge.types import SettingsDict
from muybridge.video.cutting import copy_part, encode_timed
from muybridge.video.decoded import reading
from muybridge.video.encoding import Frames
from muybridge.video.frame_times import frame_times
from muybridge.video.reading import reader_of
from muybridge.video.track import read_track

_NOT_SO = ("rotation", "variable_rate", "interlaced", "high_range")
"""What `extra` says of a source, and does not hold for what was encoded anew."""
_EARLY_S = 1e-3


class WriteSettings(StageSettings):
    """Whether, and how, clips are written."""

    clips: Literal["none", "copy", "encode"] = "none"
    """none: the list says where in its source each clip is. copy: what is coded is copied, without loss; what that
    cannot be done to, or is cropped, is encoded. encode: H.264."""
    rate: Literal["constant", "variable"] = "constant"
    """Of what is encoded: frames at the rate of the source, by their times, or each at its own time."""


@register_stage("write")
class Write(Stage):
    """Writes a clip into the folder of clips, named after its id; the record then is that of the file."""

    Settings = WriteSettings
    settings: WriteSettings
    needs: ClassVar[frozenset[str]] = frozenset(("duration", "fps", "width", "height"))
    uses: ClassVar[frozenset[str]] = frozenset(("start", "end", "crop"))
    gives: ClassVar[frozenset[str]] = frozenset(("media", "written"))
    of_kept: ClassVar[bool] = True

    def idle_reason(self) -> str | None:
        """It is idle unless clips are asked for."""
        return "no files are asked for (write.clips=copy)" if self.settings.clips == "none" else None

    def run(self, record: Record, work: Path) -> list[Record]:
        """The record of the file written.

        Raises:
            Refused: the source cannot be read, or would lose its range of brightness.
            OutputError: the disk does not take it.
        """
        if record.kind != "video" or self.settings.clips == "none":
            return [record]
        target = work / f"{record.id}-{self.key(record)[:8]}.mp4"
        try:
            with new_file(target) as temporary, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say stands in `extra` since it was probed
                how, frames = self._write(record, temporary)
            return [_written(record, target, how, frames)]
        except (InputFileError, ConfigError) as error:
            rule = error.fault if isinstance(error, InputFileError) else "unusable"
            raise Refused(rule, str(error), "unreadable") from error

    def _write(self, record: Record, temporary: Path) -> tuple[str, int]:
        with reading(record.source):
            is_container = reader_of(record.source).is_container
        if self.settings.clips == "copy" and CROP not in record.extra and is_container:
            try:
                return "copied", copy_part(record.source, temporary, record.start, record.end)
            except InputFileError as error:
                if error.fault != "not-copied":
                    raise
                temporary.unlink(missing_ok=True)
        if "high_range" in record.extra:
            raise Refused(
                "hdr",
                f"It is of high dynamic range ({record.extra['high_range']}), and encoding it would leave pale "
                "colours. Convert it to standard range first.",
            )
        return "encoded", encode_timed(temporary, self._frames(record))

    def _frames(self, record: Record) -> Iterator[tuple[float, Frames]]:
        with reading(record.source):  # what goes wrong there is about the record, and not about the disk written to
            yield from self._timed_frames(record)

    def _timed_frames(self, record: Record) -> Iterator[tuple[float, Frames]]:
        end = record.start + (record.duration_s or 0.0)
        if self.settings.rate == "variable":
            times = [t for t in frame_times(record.source, record.fps) if record.start - _EARLY_S <= t < end - _EARLY_S]
            return distinct_frames_of(record, [max(0.0, time) for time in times])
        rate = record.fps or 1.0
        count = max(1, math.floor((end - record.start) * rate + 0.5))
        places = [index / rate for index in range(count)]
        # The last one may be asked for a moment after the end, by what was rounded.
        times = [min(record.start + place, max(record.start, end - 0.5 / rate)) for place in places]
        return zip(places, frames_of(record, times), strict=True)


def _written(record: Record, target: Path, how: str, frames: int) -> Record:
    track = read_track(target)
    gone = {CROP, PACKED, *(_NOT_SO if how == "encoded" else ())}
    kept = {name: value for name, value in record.extra.items() if name not in gone}
    source: SettingsDict = {"media": record.media, "start": record.start, "end": record.end}
    if PACKED in record.extra:
        source[PACKED] = record.extra[PACKED]
    seconds = track.duration_s if track.duration_s is not None else record.duration_s
    return replace(
        record,
        media=str(target),
        start=0.0,
        end=None,
        width=track.width,
        height=track.height,
        frames=frames,
        extra={**kept, "duration": round(seconds or 0.0, 6), "written": {"how": how, "from": source}},
    )
