"""What lies in a folder of clips and pictures."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from muybridge.data.record import Refusal, kind_by_name

_Folder = tuple[int, int]
"""What a folder is known by, whatever leads to it: its device and number there."""


def files_below(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """All files of a folder and its subfolders in the order of their names, without hidden ones.

    Folders that links lead to come after the others; each is looked through once, so that no circle has no end.

    Args:
        folder: to look through.
        on_error: called for each folder that cannot be read.
    """
    for above, names in _folders(folder, on_error):
        yield from (Path(above, name) for name in names)


def media_below(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Those that are videos or pictures by their names."""
    return (path for path in files_below(folder, on_error) if kind_by_name(path.name) is not None)


def unreadable_below(folder: Path) -> list[Refusal]:
    """The folders of which nobody knows what lies in them."""
    errors: list[OSError] = []
    for _ in _folders(folder, errors.append):
        pass
    return [folder_refusal(folder, error) for error in errors]


def folder_refusal(folder: Path, error: OSError) -> Refusal:
    """Why a folder below another cannot be read."""
    where = os.path.relpath(error.filename, folder) if error.filename else str(folder)
    return Refusal(where, f"the folder cannot be read: {error.strerror}", "unreadable")


def linked_below(folder: Path) -> Iterator[str]:
    """Where the links to folders lead that are followed."""
    return (os.path.realpath(above) for above, _ in _folders(folder, None) if os.path.islink(above))  # noqa: PTH114


def _folders(folder: Path, on_error: Callable[[OSError], None] | None) -> Iterator[tuple[str, list[str]]]:
    """Each folder once, with the names of its files."""
    waiting = deque((str(folder),))
    seen: set[_Folder | None] = {None}
    while waiting:
        for above, folders, names in os.walk(waiting.popleft(), onerror=on_error):
            if (here := _id_of(above)) in seen:
                folders.clear()
                continue
            seen.add(here)
            shown = sorted(name for name in folders if name[0] != ".")
            waiting += (path for path in (f"{above}{os.sep}{name}" for name in shown) if os.path.islink(path))  # noqa: PTH114
            folders[:] = shown  # of which links are not followed
            yield above, sorted(name for name in names if name[0] != ".")


def _id_of(folder: str) -> _Folder | None:
    try:
        found = os.stat(folder)  # noqa: PTH116  # names of all kinds, as they are
    except OSError:  # it has gone meanwhile
        return None
    return found.st_dev, found.st_ino
