"""Where a service keeps its jobs and their files, from flags, variables of the environment, and what is usual."""

from __future__ import annotations

import os
from pathlib import Path

from muybridge.errors import ConfigError


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
