"""One program at a time in a folder, by a lock that the system drops with the program, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from muybridge.errors import OutputError

LOCK_FILE = ".muybridge-lock"


@contextmanager
def locked_folder(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder that exists for the time of the block.

    Where a file system or platform has no locks there is none, and two programs are not told of each other.

    Args:
        folder: to hold.
        doing: what is done there, as in "trains".

    Raises:
        OutputError: another program holds it, or it takes no files.
    """
    descriptor = _opened(folder, doing)
    try:
        yield
    finally:
        if descriptor is not None:
            # First the file, then the lock: who waits for it sees by its number that it is gone.
            with suppress(OSError):
                (folder / LOCK_FILE).unlink()
            os.close(descriptor)


def _opened(folder: Path, doing: str) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    path = folder / LOCK_FILE
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"The folder {folder} takes no files ({error.strerror}). Choose one that you may write to."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise OutputError(
                f"Another program {doing} in the folder {folder}{f' (process {holder})' if holder else ''}. Wait for "
                "it, stop it, or choose another folder."
            ) from error
        except OSError:  # no locks on this file system
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            return None
        if _is_still(descriptor, path):
            with suppress(OSError):  # whose lock it is matters to people only
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
        os.close(descriptor)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
