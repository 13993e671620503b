"""This program's own list: one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.tables import json_lines, only_file, read_head
from muybridge.data.record import Record, Refusal
from muybridge.errors import InputFileError

MANIFEST = "manifest.jsonl"
MANIFEST_FORMAT = "manifest"


def _find(path: Path) -> Path | None:
    return only_file(path, _is_manifest, "records")


def _is_manifest(path: Path) -> bool:
    if path.suffix.lower() != ".jsonl":
        return False
    if path.name == MANIFEST and not path.stat().st_size:
        return True  # of a set of which nothing was kept
    try:
        first = json.loads(read_head(path).partition("\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"id", "media", "kind"} <= first.keys()


def _read(path: Path, root: Path) -> Iterator[Record | Refusal]:
    for where, values in json_lines(path):
        if isinstance(values, Refusal):
            yield values
            continue
        try:
            record = Record.from_json(values)
        except InputFileError as error:
            yield Refusal(where, str(error), "row")
            continue
        media = root / record.media
        if media.exists():
            yield replace(record, media=str(media))
        else:
            yield Refusal(where, f"no file {record.media}", "no-file")


register_reader(Reader(MANIFEST_FORMAT, f"{MANIFEST}, with a record of this program on each line", _find, _read))
