"""What a record's file really holds, and whether it can be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from muybridge.data.crop import box_of
from muybridge.data.record import Record, Refusal
from muybridge.errors import InputFileError, MuybridgeError
from muybridge.types import SettingsDict
from muybridge.video.decoded import reading
from muybridge.video.picture import as_seen, open_file, upright_size
from muybridge.video.reading import reader_of
from muybridge.video.track import Track, decode_all, read_track

_WORST_SHARE = 0.01
_DIGITS = 6  # of seconds; what float arithmetic leaves beyond is no information


@dataclass(frozen=True)
class ProbeSettings:
    """What is let through.

    Attributes:
        max_pixels: of a frame; larger ones are refused before they are decoded.
        allow_high_range: whether videos of high dynamic range are taken with the pale colours that they are read with.
        every_frame: whether everything is decoded, to find what is damaged in the middle of a file; otherwise only the
            first frame is, and packets are looked through.
    """

    max_pixels: int = 40_000_000
    allow_high_range: bool = False
    every_frame: bool = False


def probe(record: Record, settings: ProbeSettings | None = None) -> Record | Refusal:
    """Fill in what a record's file says: size as it is shown, rate, frames, and its duration in `extra`.

    `extra` also gets `variable_rate`, `rotation` and `interlaced` where that is so. A refusal's rule is `unreadable`,
    `no-video`, `broken-tail`, `damaged`, `hdr`, `too-large`, `no-times`, `empty-part`, or `unusable`.
    """
    settings = settings or ProbeSettings()
    try:
        return _picture(record, settings) if record.kind == "image" else _video(record, settings)
    except InputFileError as error:
        return Refusal(record.name, _without_path(error, record), error.fault)
    except MuybridgeError as error:
        return Refusal(record.name, str(error), "unusable")


def probe_all(records: Iterable[Record], settings: ProbeSettings | None = None) -> tuple[list[Record], list[Refusal]]:
    """Those that can be trained on, and refusals of the others."""
    probed = [probe(record, settings) for record in records]
    return [p for p in probed if isinstance(p, Record)], [p for p in probed if isinstance(p, Refusal)]


def _picture(record: Record, settings: ProbeSettings) -> Record:
    source = record.source
    with reading(source), open_file(source) as image:
        if image.width * image.height > settings.max_pixels:
            most = settings.max_pixels / 1e6
            raise InputFileError(f"It is {image.width}x{image.height}, over {most:g} million pixels.", "too-large")
        if settings.every_frame or image.has_transparency_data:
            as_seen(image, "The picture")
        height, width = upright_size(image)
    width, height = _meant(record, width, height)
    return replace(record, width=width, height=height, fps=None, frames=1)


def _video(record: Record, settings: ProbeSettings) -> Record:
    source = record.source
    if isinstance(source, Path) and source.is_file() and not source.stat().st_size:
        raise InputFileError("It is empty.")
    track = read_track(source, settings.max_pixels)
    if track.traits.high_range and not settings.allow_high_range:
        raise InputFileError(
            f"It is of high dynamic range ({track.traits.high_range}), and would be read with pale colours. Convert "
            "it to standard range first.",
            "hdr",
        )
    duration = _duration(record, track)
    is_folder = isinstance(source, Path) and source.is_dir()
    if settings.every_frame and not is_folder and reader_of(source).is_container:
        _check_sound(record, track)
    if record.start >= duration:
        raise InputFileError(f"It lasts {duration:.4g} s, and the part begins at {record.start:g} s.", "empty-part")
    if record.end is not None and record.end > duration + 0.5 * duration / track.num_frames:
        raise InputFileError(f"It lasts {duration:.4g} s, and the part ends at {record.end:g} s.", "broken-tail")
    extra = {**record.extra, "duration": round(duration, _DIGITS), **_noted(track)}
    part = (record.end or duration) - record.start
    # Of a whole file they are counted; of a part they follow from its share of the time.
    frames = track.num_frames if not record.is_part else max(1, round(track.num_frames * part / duration))
    fps = track.fps or track.num_frames / duration
    width, height = _meant(record, track.width, track.height)
    return replace(record, width=width, height=height, fps=round(fps, _DIGITS), frames=frames, extra=extra)


def _meant(record: Record, width: int, height: int) -> tuple[int, int]:
    """The size of the part of the picture that the record means. Raises InputFileError: the file has another size."""
    box = box_of(record.extra)
    if box is None:
        return width, height
    if (box.of_width, box.of_height) != (width, height):
        raise InputFileError(
            f"It is {width}x{height}, and the part of its picture is one of {box.of_width}x{box.of_height}.", "crop"
        )
    return box.width, box.height


def _duration(record: Record, track: Track) -> float:
    """Seconds from the first frame until the last one goes."""
    if track.duration_s:
        return track.duration_s
    if record.fps and isinstance(record.source, Path) and record.source.is_dir():
        return track.num_frames / record.fps
    raise InputFileError(
        "It does not say when its frames are shown. Save it anew, as mp4; for a folder of pictures, give its rate.",
        "no-times",
    )


def _check_sound(record: Record, track: Track) -> None:
    found = decode_all(record.source)
    if found.bad_share > _WORST_SHARE:
        raise InputFileError(f"{found.num_bad} of its {found.num_packets} packets are damaged.", "damaged")
    if found.num_frames < track.num_frames * (1 - _WORST_SHARE) - 1:
        raise InputFileError(f"Of its {track.num_frames} frames only {found.num_frames} can be decoded.", "broken-tail")


def _noted(track: Track) -> SettingsDict:
    noted: SettingsDict = {}
    if track.is_variable:
        noted["variable_rate"] = True
    if track.traits.rotation:
        noted["rotation"] = track.traits.rotation
    if track.traits.is_interlaced:
        noted["interlaced"] = True
    if track.traits.high_range:
        noted["high_range"] = track.traits.high_range
    return noted


def _without_path(error: InputFileError, record: Record) -> str:
    """Its message without the file, which a refusal names itself."""
    text = str(error).removeprefix(f"{record.source} ").removeprefix("cannot be used as a video. ")
    text = text.removeprefix(f"{record.source} ")
    for kind in ("video", "picture"):
        text = text.removeprefix(f"cannot be read as a {kind}: ")
    return text.partition(" Give a ")[0]
