"""What stages have found, kept such that a killed program loses nothing of it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from muybridge.data.preparation.engine.job import Finished
from muybridge.data.preparation.status import Status
from muybridge.files.atomic import output_error
from muybridge.types import SettingsDict

NOT_OF_THE_RECORD: frozenset[Status] = frozenset(("failed", "caption-failed"))
"""Statuses that say nothing about the record itself: the next run tries these anew."""
DEADLY: frozenset[Status] = frozenset(("crashed", "timeout"))
"""Those that cost a process, and are tried anew only where that is asked for."""
_SYNC_S = 1.0
_BLOCK = 1 << 16


class Lines:
    """A file that lines are added to.

    What was added is with the system at once, and outlives this program however that ends; that it is on the disk, and
    outlives the machine, is waited for about once a second and at the end. A line that was not written whole is cut off
    when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        """Open for adding.

        Raises:
            OutputError: it cannot be written.
        """
        self.path = path
        self._synced = time.monotonic()
        self._lock = threading.Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self._end = _whole_length(self._file)
            os.ftruncate(self._file, self._end)
        except OSError as error:
            raise output_error(path, error) from error

    def add(self, text: str) -> int:
        """Add a line, without its end, of ASCII; returns where it begins.

        Raises:
            OutputError: it cannot be written; what was there before stays.
        """
        with self._lock:
            start, left = self._end, memoryview(text.encode("ascii") + b"\n")
            try:
                while left:
                    written = os.pwrite(self._file, left, self._end)
                    self._end += written
                    left = left[written:]
                if time.monotonic() - self._synced > _SYNC_S:
                    self._sync()
            except OSError as error:
                self._end = start
                raise output_error(self.path, error) from error
            return start

    def at(self, start: int) -> bytes:
        """The line that begins there."""
        found = b""
        while b"\n" not in found:
            block = os.pread(self._file, _BLOCK, start + len(found))
            if not block:
                break
            found += block
        return found.partition(b"\n")[0]

    def close(self) -> None:
        """Wait until all is on the disk.

        Raises:
            OutputError: that fails.
        """
        try:
            self._sync()
        except OSError as error:
            raise output_error(self.path, error) from error
        finally:
            os.close(self._file)

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced = time.monotonic()


@dataclass(frozen=True)
class Entry:
    """What came of a stage on a record, as it is kept.

    Attributes:
        status: ok, or why the record ends there.
        found: what the stage did to the record.
        rule: in a word, why it ends.
        reason: likewise in words.
    """

    status: Status
    found: list[SettingsDict]
    rule: str | None = None
    reason: str | None = None


class Journal:
    """Results of stages by their keys. In memory there is only where each stands."""

    def __init__(self, folder: Path, name: str = "results", retry: bool = False) -> None:
        """Read the results of all files in a folder, to add to one of them.

        Args:
            folder: that exists.
            name: of the file to add to, which begins with "results".
            retry: whether what cost a process counts as not done.

        Raises:
            OutputError: they cannot be read or written.
        """
        self._own = Lines(folder / f"{name}.jsonl")
        self._passing: dict[str, Entry] = {}
        self._places: dict[bytes, tuple[Path, int]] = {}
        self.stages: set[str] = set()
        """What there are results of, as `signature` has it; when this was opened."""
        sound: set[bytes] = set()
        try:
            for path in sorted(folder.glob("results*.jsonl")):
                for start, values in _lines_of(path):
                    key, is_deadly = bytes.fromhex(values["key"]), values["status"] in DEADLY
                    # What was mended by trying again may lie in a file that is read before.
                    if not is_deadly or not (retry or key in sound):
                        self._places[key] = (path, start)
                        self.stages.add(values["stage"])
                    if not is_deadly:
                        sound.add(key)
        except OSError as error:
            raise output_error(folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.close()

    def add(self, finished: Finished, signature: str) -> None:
        """Keep a result of a stage; what says nothing about the record is kept for this run only.

        Raises:
            OutputError: it cannot be written.
        """
        if finished.status in NOT_OF_THE_RECORD:
            self._passing[finished.key] = _entry(finished)
            return
        said = {"key": finished.key, "stage": signature, "status": finished.status}
        if finished.status != "ok":
            said |= {"rule": finished.rule, "reason": finished.reason}
        line = f'{json.dumps(said)[:-1]}, "found": {finished.found}}}'
        self._places[bytes.fromhex(finished.key)] = (self._own.path, self._own.add(line))

    def get(self, key: str) -> Entry | None:
        """The result of a key, if there is one."""
        if (passing := self._passing.get(key)) is not None:
            return passing
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        path, start = place
        values = json.loads(self._own.at(start) if path == self._own.path else _line_at(path, start))
        return Entry(values["status"], values["found"], values.get("rule"), values.get("reason"))


def _entry(finished: Finished) -> Entry:
    return Entry(finished.status, json.loads(finished.found), finished.rule, finished.reason)


def _lines_of(path: Path) -> Iterator[tuple[int, SettingsDict]]:
    """Where each line begins, and what it says; without those that are none."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                try:
                    values = json.loads(line)
                except ValueError:  # the machine went down while it was written
                    values = None
                if isinstance(values, dict) and values.keys() >= {"key", "stage", "status", "found"}:
                    yield start, values
            start += len(line)


def _line_at(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.readline()


def _whole_length(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - _BLOCK)
        place = os.pread(file, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0
