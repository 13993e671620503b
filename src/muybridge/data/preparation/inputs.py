"""What is to be prepared: the entries of a set. Files are read in parallel, those that did not change only once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from muybridge.data.preparation.engine.job import CHANGED, WRITTEN_TO, Stamp
from muybridge.data.preparation.engine.journal import Lines
from muybridge.data.readers import read_dataset
from muybridge.data.readers.manifest import MANIFEST_FORMAT
from muybridge.data.readers.row import Row, to_record
from muybridge.data.record import ContentIds, Record, Refusal, kind_by_name, media_source
from muybridge.data.writers.places import path_from
from muybridge.errors import InputFileError
from muybridge.files.atomic import output_error

_AT_ONCE = 1000
_SETTLED_NS = 2_000_000_000
"""Of a file that was written to less long ago, its time may not tell a second change from the first."""


@dataclass(frozen=True)
class Part:
    """Which of several machines, or runs one after the other, does what.

    Attributes:
        number: from 1.
        of: how many there are.
    """

    number: int
    of: int

    @property
    def name(self) -> str:
        """As files are named."""
        return f"{self.number}-of-{self.of}"

    def has(self, name: str) -> bool:
        """Whether it is for a file of this name; whatever else there is does not matter."""
        return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % self.of == self.number - 1


@dataclass(frozen=True)
class Input:
    """An entry of the set.

    Attributes:
        found: a record, or why it is none.
        stamp: of its file when it was read for its id; None where there is no single file.
    """

    found: Record | Refusal
    stamp: Stamp | None = None


class KnownIds(ContentIds):
    """Ids of records from a list of files that were read before, which is added to."""

    def __init__(self, folder: Path, part: Part | None = None) -> None:
        """With the lists in a folder.

        Raises:
            OutputError: they cannot be read or written.
        """
        super().__init__()
        self.stamps: dict[str, Stamp] = {}
        """Of files as they were when their ids were found, by path."""
        self._known: dict[str, str] = {}
        name = "files" if part is None else f"files-{part.name}"
        try:
            for path in sorted(folder.glob("files*.jsonl")):
                with path.open("rb") as file:
                    self._known.update(filter(None, map(_read_line, file)))
        except OSError as error:
            raise output_error(folder, error) from error
        self._lines = Lines(folder / f"{name}.jsonl")

    def __call__(self, media: str, extra: Mapping[str, object], start: float, end: float | None) -> str:
        """As of its base; of a file that was not written to since it was read, without reading it.

        Raises:
            OSError: the file cannot be read.
            InputFileError: it is no file, or is being written to.
        """
        stamp = Stamp.of(media)
        if stamp is None or os.path.isdir(media):  # noqa: PTH112
            return super().__call__(media, extra, start, end)
        asked = json.dumps([media, stamp.size, stamp.mtime_ns, str(media_source(media, extra)), start, end])
        if (known := self._known.get(asked)) is not None:
            self.stamps[media] = stamp
            return known
        if not os.path.isfile(media):  # noqa: PTH113  # reading a pipe would never end
            raise InputFileError("it is no file that could be read: a pipe or a device", "unknown-kind")
        found = super().__call__(media, extra, start, end)
        if not stamp.still_holds:
            raise InputFileError(WRITTEN_TO, CHANGED)
        self.stamps[media] = stamp
        if time.time_ns() - stamp.mtime_ns > _SETTLED_NS:
            self._known[asked] = found
            self._lines.add(json.dumps([asked, found]))
        return found

    def close(self) -> None:
        """Have the list on the disk."""
        self._lines.close()


def read_inputs(
    raw: Path,
    ids: KnownIds,
    part: Part | None,
    threads: int,
    on_file: Callable[[int, int], None] | None = None,
    read_as: str | None = None,
) -> list[Input]:
    """The entries of a set in its order; refusals among them, unless only a part of the set is meant.

    Args:
        raw: a folder of videos, or a set in any format that can be read.
        ids: of files.
        part: of the set; None for all of it.
        threads: that read files.
        on_file: called with (files looked for, files in all).
        read_as: name of the set's format; by default it is recognised.

    Raises:
        InputFileError: there is nothing, or a list as a whole cannot be read.
        ConfigError: nothing that is known is there, or not what `read_as` says.
    """

    def look_for(rows: Sequence[Row], root: Path) -> Iterator[Record | Refusal]:
        count = 0
        pool = ThreadPoolExecutor(threads)
        try:
            for start in range(0, len(rows), _AT_ONCE):
                chunk = rows[start : start + _AT_ONCE]
                for found in pool.map(lambda row: _look_for(row, root, ids, part), chunk):
                    count += 1
                    if on_file is not None:
                        on_file(count, len(rows))
                    yield found
        finally:
            pool.shutdown(cancel_futures=True)

    dataset = read_dataset(raw, read_as, look_for=look_for)
    records = dataset.records
    if part is not None:
        # Of a list that has ids of its own, all entries have come.
        start = raw if raw.is_dir() else raw.parent
        records = [record for record in records if part.has(path_from(start, record.media))]
    found: Iterable[Record | Refusal] = records
    if dataset.format == MANIFEST_FORMAT:  # its files may have changed since it was written
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda record: _with_own_id(record, ids), records))
    inputs = [_input(each, ids) if isinstance(each, Record) else Input(each) for each in found]
    return inputs if part is not None else [*inputs, *map(Input, dataset.refusals)]


def read_names(path: Path, read_as: str | None = None) -> list[Input]:
    """The entries of a set, or the one video or picture that a path names, by their names and unread.

    Args:
        path: of either.
        read_as: name of the set's format; by default it is recognised.

    Raises:
        InputFileError: there is nothing, or a list as a whole cannot be read.
        ConfigError: nothing that is known is there, or not what `read_as` says.
    """
    if read_as is None and path.is_file() and (kind := kind_by_name(path.name)) is not None:
        return [Input(Record(_name_id(str(path), {}, 0.0, None), str(path), kind))]
    dataset = read_dataset(path, read_as, look_for=lambda rows, root: (to_record(row, root, _name_id) for row in rows))
    return [Input(found) for found in (*dataset.records, *dataset.refusals)]


def _name_id(media: str, extra: Mapping[str, object], start: float, end: float | None) -> str:
    named = f"{media_source(media, extra)}\0{start}\0{end}"
    return hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _with_own_id(record: Record, ids: KnownIds) -> Record | Refusal:
    try:
        return replace(record, id=ids(record.media, record.extra, record.start, record.end))
    except InputFileError as error:
        return Refusal(record.name, str(error), error.fault)
    except OSError as error:
        return Refusal(record.name, f"{record.media} cannot be read: {error.strerror}", "unreadable")


_OTHERS = Refusal("", "it is of another part", "part")


def _look_for(row: Row, root: Path, ids: KnownIds, part: Part | None) -> Record | Refusal:
    if part is not None and not part.has(path_from(root, str((row.folder or root) / row.media))):
        return _OTHERS
    found = to_record(row, root, ids)
    if isinstance(found, Refusal):
        return found
    # What a list says of it is no bound on the time that it may take.
    return replace(found, extra={name: value for name, value in found.extra.items() if name != "duration"})


def _input(record: Record, ids: KnownIds) -> Input:
    if os.path.isdir(record.media):  # noqa: PTH112
        return Input(record)
    return Input(record, ids.stamps.get(record.media) or Stamp.of(record.media))


def _read_line(line: bytes) -> tuple[str, str] | None:
    try:
        asked, found = json.loads(line)
    except ValueError:
        return None
    return (asked, found) if isinstance(asked, str) and isinstance(found, str) else None
