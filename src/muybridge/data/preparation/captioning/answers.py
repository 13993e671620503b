"""Answers that were given before, so that none is asked for, or paid for, twice; and how many are asked for at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from muybridge.files.atomic import new_file, output_error
from muybridge.files.utf8 import is_utf8

_PAUSE_S = 0.05


class Answers:
    """Answers in a folder, a file each, by what was asked of whom about which clip."""

    def __init__(self, folder: Path) -> None:
        """In a folder, which is made with the first answer."""
        self._folder = folder

    def find(self, *key: str) -> dict[str, str] | None:
        """What was kept under a key; None where nothing was, or nothing whole."""
        try:
            content = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        is_whole = isinstance(content, dict) and all(isinstance(v, str) and is_utf8(v) for v in content.values())
        return content if is_whole else None

    def keep(self, values: dict[str, str], *key: str) -> None:
        """Keep texts under a key.

        Raises:
            OutputError: they cannot be written.
        """
        path = self._path(key)
        make_folder(path.parent)
        with new_file(path) as temporary:
            temporary.write_text(json.dumps(values), encoding="utf-8")

    def _path(self, key: tuple[str, ...]) -> Path:
        name = hashlib.sha256("\0".join(key).encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / name[:2] / f"{name}.json"


class Slots:
    """At most so many at once, among all processes that use the same folder."""

    def __init__(self, folder: Path, count: int) -> None:
        """Of a folder, which is made when it is needed; `count` is 1 at least."""
        self._folder = folder
        self._count = count

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait for a slot, and hold it for the time of the block; a process that dies gives its slot back.

        Where a platform or file system has no locks, nothing is waited for.

        Raises:
            OutputError: the folder takes no files.
        """
        try:
            import fcntl
        except ImportError:
            yield
            return
        make_folder(self._folder)
        with contextlib.ExitStack() as opened:
            files = []
            for number in range(self._count):
                path = self._folder / f"slot-{number}"
                try:
                    files.append(opened.enter_context(path.open("a")))
                except OSError as error:
                    raise output_error(path, error) from error
            # Who starts looking at another slot than the others finds a free one sooner.
            first = os.getpid() % self._count
            turn = files[first:] + files[:first]
            while True:
                for file in turn:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    except OSError:  # no locks on this file system
                        pass
                    yield
                    return
                time.sleep(_PAUSE_S)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
