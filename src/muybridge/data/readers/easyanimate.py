"""EasyAnimate's list, in JSON or CSV: `file_path`, `text`, `type`, and more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import FURTHER_FILES, Row, caption_of, rest_of
from muybridge.data.readers.tables import csv_header, csv_rows, json_list, only_file, read_head
from muybridge.data.record import KINDS, Refusal
from muybridge.types import SettingsDict

_BEGINNING = re.compile(r"\s*\[\s*(\{|\])")


def _find(path: Path) -> Path | None:
    return only_file(path, _is_list, "file_path")


def _is_list(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return "file_path" in csv_header(path)
    head = read_head(path) if suffix == ".json" else ""
    return '"file_path"' in head and _BEGINNING.match(head) is not None


def _read(path: Path, root: Path) -> Iterator[Row | Refusal]:
    entries = csv_rows(path) if path.suffix.lower() == ".csv" else json_list(path)
    for where, values in entries:
        yield values if isinstance(values, Refusal) else _row(where, values, root)


def _row(where: str, values: SettingsDict, root: Path) -> Row | Refusal:
    media, kind = values.get("file_path"), values.get("type") or None
    if media is not None and not isinstance(media, str):
        return Refusal(where, f"file_path must be text; given {media!r}", "row")
    if kind is not None and kind not in KINDS:
        return Refusal(where, f"type must be video or image; given {kind!r}", "kind")
    # The original takes what has no type for a picture; here the file's name says it.
    extra = rest_of(values, "file_path", "type")
    for name in FURTHER_FILES:
        if isinstance(other := extra.get(name), str) and other:
            extra[name] = os.path.abspath(root / other)  # noqa: PTH100  # links stay as they are named
    return Row(where, media or "", caption_of(values), kind, extra=extra)


register_reader(Reader("easyanimate", "a list in JSON, or a CSV file, with file_path and text", _find, _read))
