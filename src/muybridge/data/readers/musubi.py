"""musubi-tuner's list: JSON lines with `video_path` or `image_path` and `caption`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import Row, caption_of, rest_of
from muybridge.data.readers.tables import json_lines, only_file, read_head
from muybridge.data.record import Kind, Refusal
from muybridge.types import SettingsDict

_KINDS: dict[str, Kind] = {"video_path": "video", "image_path": "image"}


def _find(path: Path) -> Path | None:
    return only_file(path, _is_list, "video_path or image_path")


def _is_list(path: Path) -> bool:
    if path.suffix.lower() != ".jsonl":
        return False
    try:
        first = json.loads(read_head(path).partition("\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and not _KINDS.keys().isdisjoint(first)


def _read(path: Path, _root: Path) -> Iterator[Row | Refusal]:
    for where, values in json_lines(path):
        yield values if isinstance(values, Refusal) else _row(where, values)


def _row(where: str, values: SettingsDict) -> Row | Refusal:
    column = next((name for name in _KINDS if values.get(name)), None)
    if column is None:
        return Refusal(where, "it has neither video_path nor image_path", "no-name")
    if not isinstance(values[column], str):
        return Refusal(where, f"{column} must be text; given {values[column]!r}", "row")
    fps = values.get("source_fps")
    return Row(where, values[column], caption_of(values), _KINDS[column], fps=fps, extra=rest_of(values, column))


register_reader(Reader("musubi", "JSON lines with video_path or image_path, and caption", _find, _read))
