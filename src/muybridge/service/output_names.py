"""Names of files after what they show, in any script."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from muybridge.files.atomic import output_error

_MAX_LETTERS = 60
_MAX_BYTES = 120  # file systems take 143 to 255 for a name, and there is more to come behind the words
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])")
"""What Windows takes for a device, whatever ending follows."""


def words_of(text: str) -> list[str]:
    """The words of a text in small letters of its own script, without anything else."""
    kept = "".join(
        letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in unicodedata.normalize("NFC", text)
    )
    return unicodedata.normalize("NFC", kept.lower()).split()


def name_after(text: str) -> str:
    """A name that every file system takes, of the words of a text; "video" where there are none."""
    name = "-".join(words_of(text))[:_MAX_LETTERS]
    while len(name.encode()) > _MAX_BYTES:
        name = name[:-1]
    name = name.strip("-") or "video"
    return f"video-{name}" if _RESERVED.fullmatch(name) else name


@contextlib.contextmanager
def reserved_file(prompt: str, suffix: str = ".mp4") -> Iterator[Path]:
    """A file of this folder named after a prompt, of a name that nothing has: with -2, -3 and so on where needed.

    It is there at once, empty and locked, so that no other run takes its name, and gone again if nothing was written
    when the block ends. What a run that was killed left empty is free.

    Raises:
        OutputError: the folder takes no files.
    """
    name = name_after(prompt)
    paths = (Path(f"{name}{'' if number == 1 else f'-{number}'}{suffix}") for number in itertools.count(1))
    path, file = next((path, file) for path in paths if (file := _taken(path)) is not None)
    with file:
        try:
            yield path
        finally:
            if path.is_file() and path.stat().st_size == 0:
                path.unlink()


def _taken(path: Path) -> BinaryIO | None:
    """The file, new or left empty, locked until it is closed; None where there is something else."""
    try:
        file = path.open("ab")
    except OSError as error:
        if path.exists() or path.is_symlink():
            return None
        raise output_error(path, error) from error
    try:
        _lock(file)
        ours, there = os.fstat(file.fileno()), path.stat()
    except OSError:
        file.close()
        return None
    if ours.st_size == 0 and (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
        return file
    file.close()
    return None


def _lock(file: BinaryIO) -> None:
    """Raises BlockingIOError where another run has the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # file systems of networks may have no locks; whether the file is empty has to do there
