"""Ids of records that are found out once for each file, and remembered between runs.

What is remembered counts as long as size, times and inode of the file are the same. A file that was changed in the last
seconds is not remembered, as it could change again without any of them telling.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from muybridge.data.record import PACKED, ContentIds

_SETTLED_NS = 3_000_000_000
_FILE = "content-ids-1.sqlite"
_WAIT_S = 5.0


class RememberedIds(ContentIds):
    """Makes the ids of records, as its base does; files that have not changed are not read again. Threads may share it.

    Where its folder cannot be read or written nothing is remembered.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Remember in a folder, by default `muybridge` in this user's folder for caches."""
        super().__init__()
        self.path = (folder or default_folder()) / _FILE
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __call__(self, media: str, extra: Mapping[str, object], start: float, end: float | None) -> str:
        """The id of a part of a file.

        Raises:
            OSError: the file cannot be read.
        """
        with self._locks[media]:  # parts of one file: it is read once
            stamp = _stamp(Path(media))
            if stamp is None:
                return super().__call__(media, extra, start, end)
            asked = json.dumps([os.path.abspath(media), extra.get(PACKED), start, end])  # noqa: PTH100  # links stay
            if (known := self._known(asked, stamp)) is not None:
                return known
            found = super().__call__(media, extra, start, end)
            if stamp == _stamp(Path(media)) and _is_settled(Path(media)):
                self._remember(asked, stamp, found)
            return found

    def _known(self, asked: str, stamp: str) -> str | None:
        if not self.path.is_file():
            return None
        try:
            with self._opened() as ids:
                row = ids.execute("SELECT stamp, id FROM ids WHERE asked = ?", (asked,)).fetchone()
        except (sqlite3.Error, OSError):
            return None
        return row[1] if row is not None and row[0] == stamp else None

    def _remember(self, asked: str, stamp: str, found: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._opened() as ids, ids:
                ids.execute("CREATE TABLE IF NOT EXISTS ids (asked TEXT PRIMARY KEY, stamp TEXT, id TEXT)")
                ids.execute("INSERT OR REPLACE INTO ids VALUES (?, ?, ?)", (asked, stamp, found))
        except (sqlite3.OperationalError, OSError):
            return  # the id is right all the same
        except sqlite3.DatabaseError:  # damaged: the next one begins anew
            with suppress(OSError):
                self.path.unlink()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        # One each time, as threads cannot share them.
        with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as ids:
            ids.execute("PRAGMA synchronous = OFF")  # what is lost with the power is found out again
            yield ids


def default_folder() -> Path:
    """Where this user's caches of this program are: in `$XDG_CACHE_HOME` or `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "muybridge"


def _stamp(path: Path) -> str | None:
    """By what a file is taken to be the same; None for what is no file, as a folder of pictures."""
    if not path.is_file():
        return None
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino} {found.st_dev}"


def _is_settled(path: Path) -> bool:
    found = path.stat()
    return time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS
