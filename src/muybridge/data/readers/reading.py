"""From whatever holds a set to its records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from muybridge.data.readers.folders import folder_refusal, media_below, unreadable_below
from muybridge.data.readers.registry import Found, Reader, reader_of_name, readers
from muybridge.data.readers.row import Row, to_record
from muybridge.data.record import ContentIds, Record, Refusal
from muybridge.errors import ConfigError, InputFileError

LookFor = Callable[[Sequence[Row], Path], Iterable[Record | Refusal]]


@dataclass(frozen=True)
class ReadDataset:
    """A set as it was read: every entry is a record or a refusal.

    Attributes:
        records: in the order of the set.
        refusals: entries that are none, each with its reason; likewise.
        format: name of its format.
    """

    records: tuple[Record, ...]
    refusals: tuple[Refusal, ...]
    format: str


def read_dataset(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002  # what it is called in settings
    root: str | os.PathLike[str] | None = None,
    look_for: LookFor | None = None,
) -> ReadDataset:
    """Read a set of captioned clips and pictures. Files are read for their content's digest, and not decoded.

    Args:
        path: a file that lists them, or their folder.
        format: name of the format; by default it is recognised by what is there.
        root: the folder that names of files start from; by default the one of the list.
        look_for: (rows, root) -> what each row names, in their order; by default one after the other.

    Raises:
        InputFileError: there is nothing at `path`, or its list as a whole cannot be read.
        ConfigError: `format` is unknown or not what is there, or nothing that is known is there.
    """
    given = Path(os.fspath(path))
    reader, found = recognised(given, format)
    start = Path(os.fspath(root)) if root is not None else found if found.is_dir() else found.parent
    listed: set[Path] = set()
    entries = list(_settled(list(reader.read(found, start)), start, listed, look_for or _one_by_one))
    records = tuple(entry for entry in entries if isinstance(entry, Record))
    refusals = [entry for entry in entries if isinstance(entry, Refusal)]
    if given.is_dir():
        refusals += _unlisted(given, listed, {refusal.where for refusal in refusals})
    return ReadDataset(records, tuple(refusals), reader.name)


def recognised(path: Path, format: str | None = None) -> tuple[Reader, Path]:  # noqa: A002  # as above
    """What reads a set, and what it is to read: the list itself, or the folder.

    Raises:
        InputFileError: there is nothing at `path`, or nothing that can be seen.
        ConfigError: `format` is unknown or not what is there, or nothing that is known is there.
    """
    if not path.exists():
        raise InputFileError(f"There is no file or folder {path}. Check the path.", "no-file")
    return _recognised(path) if format is None else _named(path, format)


def _settled(entries: Sequence[Found], root: Path, listed: set[Path], look_for: LookFor) -> Iterator[Record | Refusal]:
    """Records and refusals; files that were named anywhere go into `listed`."""
    rows = [entry for entry in entries if isinstance(entry, Row)]
    made = iter(look_for(rows, root))
    for entry in entries:
        if isinstance(entry, Row):
            names = [entry.media, *(value for value in entry.extra.values() if isinstance(value, str))]
            listed.update(_absolute((entry.folder or root) / name) for name in names)
            yield next(made)
            continue
        if isinstance(entry, Record):
            listed.add(_absolute(Path(entry.media)))
        yield entry


def _one_by_one(rows: Sequence[Row], root: Path) -> Iterator[Record | Refusal]:
    ids = ContentIds()
    return (to_record(row, root, ids) for row in rows)


def _unlisted(folder: Path, listed: set[Path], known: set[str]) -> Iterator[Refusal]:
    """Clips and pictures of a folder that a list in there does not name, and subfolders that cannot be read."""
    errors: list[OSError] = []
    for media in media_below(folder, errors.append):
        where = str(media.relative_to(folder))
        if where not in known and listed.isdisjoint((_absolute(media), _absolute(media.parent))):
            yield Refusal(where, "no complete row names it", "not-listed")
    yield from (folder_refusal(folder, error) for error in errors)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # links stay as they are named


def _named(path: Path, name: str) -> tuple[Reader, Path]:
    reader = reader_of_name(name)
    found = reader.find(path)
    if found is None:
        raise ConfigError(f"{path} is no set of the format {name}, which needs {reader.needs}.")
    return reader, found


def _recognised(path: Path) -> tuple[Reader, Path]:
    for reader in readers():
        found = reader.find(path)
        if found is not None and reader.is_plain(found):
            return reader, found
    if path.is_dir() and (unreadable := unreadable_below(path)):
        raise InputFileError(f"{path} holds no set of clips or pictures that can be seen: {unreadable[0]}.")
    needs = "; ".join(f"{reader.name}: {reader.needs}" for reader in readers())
    raise ConfigError(f"{path} holds no set of clips or pictures of a known format. Known are {needs}.")
