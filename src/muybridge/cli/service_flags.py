"""What commands of a service have in common: where jobs and files are, how long they are kept, how to be ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from muybridge.errors import ConfigError

_DAY_S = 86_400.0


def usual_folder() -> Path:
    """Where a service keeps everything that it was told no place for."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "muybridge"


def places(data: Path | None, store: str | None, files: str | None) -> tuple[str, str]:
    """The store of jobs and the place of their files.

    Args:
        data: folder of both, where they are not elsewhere.
        store: of jobs elsewhere; by default what `MUYBRIDGE_STORE` says.
        files: of jobs elsewhere; by default what `MUYBRIDGE_FILES` says.

    Raises:
        ConfigError: only one of both is elsewhere.
    """
    store = store or os.environ.get("MUYBRIDGE_STORE") or None
    files = files or os.environ.get("MUYBRIDGE_FILES") or None
    if (store is None) != (files is None):
        given = "the files" if store is None else "the store"
        raise ConfigError(
            f"Only {given} was given. Jobs and their files go together: give both --store and --files (or "
            "MUYBRIDGE_STORE and MUYBRIDGE_FILES), or neither. Files that a store does not know are removed."
        )
    folder = data or usual_folder()
    return store or str(folder / "jobs.db"), files or str(folder / "files")


def seconds_of_days(days: float | None) -> float | None:
    """None stays what it is: for ever."""
    return None if days is None else days * _DAY_S


def end_when_asked() -> None:
    """Let a polite request to end do what Ctrl+C does, so that workers give back what they are at."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: object) -> None:
    del number, frame
    raise SystemExit(0)
