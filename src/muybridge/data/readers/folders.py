"""What lies in a folder of clips and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from muybridge.data.record import kind_by_name


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and its subfolders in the order of their names, without hidden ones."""
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(above, name) for name in sorted(names) if name[0] != ".")


def media_below(folder: Path) -> Iterator[Path]:
    """Those that are videos or pictures by their names."""
    return (path for path in files_below(folder) if kind_by_name(path.name) is not None)
