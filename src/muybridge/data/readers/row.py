"""What a set says about one clip or picture, before it was looked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

from muybridge.data.crop import CROP
from muybridge.data.packed import PackedFile
from muybridge.data.record import PACKED, Kind, Record, Refusal, check_number, kind_by_name, packed_extra
from muybridge.errors import InputFileError
from muybridge.files.utf8 import is_utf8
from muybridge.types import SettingsDict

CAPTION_NAMES = ("text", "caption", "prompt")
"""What sets call the caption, in the order in which it is looked for."""
FURTHER_FILES = ("control_file_path", "control_path")
"""What names a file beside the one that is meant; in `extra` it stands from everywhere."""
IdMaker = Callable[[str, Mapping[str, object], float, float | None], str]
"""From a record's `media`, `extra`, start and end to its id, as `ContentIds` does it."""
_OWN_NAMES = (PACKED, CROP, "duration")
"""What records note under these names is found out and not taken over, a duration that is none among it."""
_COUNTS, _NUMBERS = ("width", "height", "frames"), ("fps", "duration")
"""What sets of ours say of a file; of others' sets, what is no number stays what it is."""


@dataclass(frozen=True)
class Row:
    """One entry of a set.

    Attributes:
        where: stands for it in refusals.
        media: its file as the set names it.
        text: its caption.
        kind: what it is, if the set says so.
        start: where it begins in its file, in seconds.
        end: where it ends.
        fps: its rate, where its file may have none.
        packed: where its file lies, if that is inside `media`.
        extra: what else the set says.
        folder: that its file is named from, if it is not that of the whole set.
    """

    where: str
    media: str
    text: object = ""
    kind: Kind | None = None
    start: float = 0.0
    end: float | None = None
    fps: float | None = None
    packed: PackedFile | None = None
    extra: SettingsDict = field(default_factory=dict)
    folder: Path | None = None


def caption_of(values: Mapping[str, object]) -> object:
    """The caption among named values; empty where there is none."""
    given = (values[name] for name in CAPTION_NAMES if values.get(name) is not None)
    return next(given, "")


def rest_of(values: Mapping[str, object], *used: str) -> SettingsDict:
    """What named values say beside the caption and what else is `used`."""
    known = {*CAPTION_NAMES, *used}
    return {name: value for name, value in values.items() if isinstance(name, str) and name not in known}


def to_record(row: Row, root: Path, ids: IdMaker) -> Record | Refusal:
    """Look for what a row names, below `root` unless its path is absolute."""
    if not row.media:
        return Refusal(row.where, "it names no file", "no-name")
    try:
        path = (row.folder or root) / row.media
        return _to_record(row, path, ids)
    except InputFileError as error:
        return Refusal(row.where, str(error), error.fault)
    except (OSError, ValueError) as error:  # also names that no file system takes
        reason = (isinstance(error, OSError) and error.strerror) or "its name cannot be that of a file"
        return Refusal(row.where, f"{row.media} cannot be read: {reason}", "unreadable")


def _to_record(row: Row, path: Path, ids: IdMaker) -> Record:
    if not os.path.exists(path):  # noqa: PTH110  # False also for names that no file system takes
        raise InputFileError(f"no file {row.media}", "no-file")
    kind = _kind(row, path)
    for name in ("start", "end", "fps"):
        check_number(name, getattr(row, name))
    if row.end is not None and row.end <= row.start:
        raise InputFileError(f"it ends at {row.end:g} s, not after its start at {row.start:g} s", "empty-part")
    extra, known = _known(row)
    if row.packed is not None:
        extra |= packed_extra(row.packed)
    media, start = str(path), float(row.start)
    return Record(ids(media, extra, start, row.end), media, kind, _caption(row), start, row.end, **known, extra=extra)


def _known(row: Row) -> tuple[SettingsDict, dict[str, Any]]:
    """What is for `extra`, and the fields of a record that are said beside it."""
    extra = {name: value for name, value in row.extra.items() if name not in _OWN_NAMES}
    counts = {name: row.extra[name] for name in _COUNTS if _is_number(row.extra.get(name), int)}
    numbers = {name: float(row.extra[name]) for name in _NUMBERS if _is_number(row.extra.get(name), int | float)}
    if (duration := numbers.pop("duration", None)) is not None:
        extra["duration"] = duration
    fields = {**counts, **numbers}
    extra = {name: value for name, value in extra.items() if name not in fields}
    return extra, fields if row.fps is None else {**fields, "fps": row.fps}


def _is_number(value: Any, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and 0 < value < float("inf")


def _kind(row: Row, path: Path) -> Kind:
    if path.is_dir():
        if row.kind == "video":
            return "video"
        raise InputFileError(f"{row.media} is a folder", "unknown-kind")
    found = kind_by_name(row.media if row.packed is None else row.packed.member)
    if found is None:
        raise InputFileError(f"{row.media} is no video or picture, by its name", "unknown-kind")
    if row.kind is not None and row.kind != found:
        raise InputFileError(f"{row.media} is said to be of the kind {row.kind}, and is of the kind {found}", "kind")
    return found


def _caption(row: Row) -> str:
    if not isinstance(row.text, str):
        raise InputFileError(f"its caption is no text: {row.text!r}", "caption")
    if not is_utf8(row.text):
        raise InputFileError("its caption is not in UTF-8", "caption")
    return row.text.strip()
