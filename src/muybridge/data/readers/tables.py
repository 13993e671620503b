"""Files with one entry a row: JSON lines, lists in JSON, CSV, and plain lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from muybridge.data.record import Refusal
from muybridge.errors import ConfigError, InputFileError
from muybridge.types import SettingsDict

_HEAD = 1 << 16
_LONGEST_CELL = 1 << 24

Entry = tuple[str, SettingsDict | Refusal]
"""(where it stands, what stands there)."""


def read_text(path: Path) -> str:
    """A file's text. Bytes that are not UTF-8 are kept as `os.fsdecode` does, as they may belong to a file's name.

    Raises:
        InputFileError: it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}.") from error


def read_head(path: Path) -> str:
    """The beginning of a file's text, to recognise it by; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD).decode("utf-8-sig", "surrogateescape")
    except OSError:
        return ""


def lines_of(path: Path) -> list[str]:
    """Lines as an editor counts them: a line feed at the end begins none. Only line feeds end lines."""
    lines = read_text(path).split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def json_lines(path: Path, before: str = "") -> Iterator[Entry]:
    """Objects of a file of JSON lines; lines without anything do not count as entries."""
    for number, line in enumerate(lines_of(path), 1):
        if line.strip():
            yield _entry(f"{before}row {number}", line)


def json_list(path: Path) -> Iterator[Entry]:
    """Objects of a file with one list in JSON.

    Raises:
        InputFileError: it is none.
    """
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{path} is not JSON: {error}. Mend it, or write it anew.") from error
    if not isinstance(values, list):
        raise InputFileError(f"{path} must hold a list of objects in JSON; it holds a {type(values).__name__}.")
    for number, value in enumerate(values, 1):
        where = f"row {number}"
        yield where, value if isinstance(value, dict) else Refusal(where, "it is no object of JSON", "row")


def csv_rows(path: Path, before: str = "") -> Iterator[Entry]:
    """Rows of a CSV file whose first row names the columns; rows are counted from 1 after that one.

    Raises:
        InputFileError: it is none.
    """
    longest = csv.field_size_limit(_LONGEST_CELL)
    try:
        rows = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise InputFileError(f"{path} is not CSV: {error}. Mend it, or write it anew.") from error
    finally:
        csv.field_size_limit(longest)
    if not rows:
        raise InputFileError(f"{path} is empty.")
    header = [name.strip() for name in rows[0]]
    for number, cells in enumerate(rows[1:], 1):
        where = f"{before}row {number}"
        if not cells:
            continue
        if len(cells) != len(header):
            yield where, Refusal(where, f"it has {len(cells)} cells, and the header {len(header)}", "row")
        else:
            yield where, dict(zip(header, cells, strict=True))


def csv_header(path: Path) -> set[str]:
    """Names of the columns of a CSV file; none where it is something else."""
    first = read_head(path).partition("\n")[0]
    try:
        return {name.strip() for name in next(csv.reader([first]), [])}
    except csv.Error:
        return set()


def only_file(path: Path, is_one: Callable[[Path], bool], what: str) -> Path | None:
    """The file `path`, or the one in the folder `path`, that is of a kind; None where there is none.

    Raises:
        ConfigError: the folder has several.
    """
    if not path.is_dir():
        return path if is_one(path) else None
    found = [entry for entry in sorted(path.iterdir()) if entry.is_file() and entry.name[0] != "." and is_one(entry)]
    if len(found) > 1:
        names = ", ".join(ascii(entry.name) for entry in found[:4])
        raise ConfigError(f"{path} holds several files with {what}: {names}. Name the one to read.")
    return found[0] if found else None


def _entry(where: str, line: str) -> Entry:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return where, Refusal(where, "it is not JSON", "row")
    return where, value if isinstance(value, dict) else Refusal(where, "it is no object of JSON", "row")
