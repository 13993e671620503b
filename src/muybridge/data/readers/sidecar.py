"""Files with captions beside them: `a.mp4` and `a.txt`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muybridge.data.readers.folders import files_below, media_below
from muybridge.data.readers.loose_files import loose_rows
from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import Row
from muybridge.data.record import Refusal


def _find(path: Path) -> Path | None:
    return path if path.is_dir() and next(media_below(path), None) is not None else None


def _read(path: Path, _root: Path) -> Iterator[Row | Refusal]:
    return loose_rows(path, list(files_below(path)))


register_reader(Reader("sidecar", "a folder of videos and pictures, with captions in NAME.txt", _find, _read))
