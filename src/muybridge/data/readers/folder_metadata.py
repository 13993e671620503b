"""VideoFolder and ImageFolder of Hugging Face: `metadata.jsonl`, `.csv` or `.parquet` beside files, or above them.

Files that lie neither beside a list nor below one are read as in a folder without lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from muybridge.data.readers.folders import files_below
from muybridge.data.readers.loose_files import loose_rows
from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import Row, caption_of, rest_of
from muybridge.data.readers.tables import Entry, csv_header, csv_rows, json_lines, read_head
from muybridge.data.record import Refusal
from muybridge.types import SettingsDict

METADATA = "metadata.jsonl"
_NAMES = (METADATA, "metadata.csv", "metadata.parquet")
_COLUMNS = ("file_name", "video_file_name", "image_file_name")
"""Where the file is named, before others that end alike."""
_READ = {".jsonl": json_lines, ".csv": csv_rows}


def _find(path: Path) -> Path | None:
    if path.is_dir():
        return path if any(_lists(path)) else None
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return path if "file_name" in read_head(path).partition("\n")[0] else None
    if suffix == ".csv":
        return path if _file_column(dict.fromkeys(csv_header(path))) else None
    return path if suffix == ".parquet" else None


def _lists(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.name in _NAMES)


def _read(path: Path, root: Path) -> Iterator[Row | Refusal]:
    if not path.is_dir():
        yield from _read_list(path, "", root)
        return
    lists = list(_lists(path))
    for metadata in lists:
        above = metadata.parent.relative_to(path)
        before = "" if above == Path() else f"{above}/{metadata.name} "
        yield from _read_list(metadata, before, root / above)
    claimed = {metadata.parent for metadata in lists}
    yield from loose_rows(path, [file for file in files_below(path) if claimed.isdisjoint(file.parents)])


def _read_list(path: Path, before: str, start: Path) -> Iterator[Row | Refusal]:
    entries = (
        _parquet_rows(path, before) if path.suffix.lower() == ".parquet" else _READ[path.suffix.lower()](path, before)
    )
    for where, values in entries:
        yield values if isinstance(values, Refusal) else _row(where, values, start)


def _row(where: str, values: SettingsDict, start: Path) -> Row | Refusal:
    column = _file_column(values)
    if column is None:
        return Refusal(where, "it has no file_name, nor a name that ends in _file_name", "no-name")
    media = values[column]
    if media is not None and not isinstance(media, str):
        return Refusal(where, f"{column} must be text; given {media!r}", "row")
    return Row(where, media or "", caption_of(values), extra=rest_of(values, column), folder=start)


def _file_column(values: SettingsDict) -> str | None:
    others = (name for name in values if name.endswith("_file_name"))
    return next((name for name in (*_COLUMNS, *others) if name in values), None)


def _parquet_rows(path: Path, before: str) -> Iterator[Entry]:
    name = before.strip() or path.name
    try:
        from pyarrow import ArrowException, parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        yield (
            name,
            Refusal(name, "reading Parquet needs pyarrow; install it, or save the list as JSON lines", "pyarrow"),
        )
        return
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        yield name, Refusal(name, f"it cannot be read as Parquet: {error}", "unreadable")
        return
    for number, row in enumerate(rows, 1):
        yield f"{before}row {number}", json.loads(json.dumps(row, default=str))  # dates and the like as text


register_reader(
    Reader("folder", "metadata.jsonl, .csv or .parquet with file_name, and the files beside it", _find, _read)
)
