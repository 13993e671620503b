"""Two lists side by side: names of files in one, captions in the other, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import Row
from muybridge.data.readers.tables import lines_of
from muybridge.data.record import Refusal
from muybridge.errors import InputFileError

_MEDIA = ("videos.txt", "video.txt")
_CAPTIONS = ("prompts.txt", "prompt.txt", "captions.txt", "caption.txt")


def _find(path: Path) -> Path | None:
    if path.is_dir():
        return next((path / name for name in _MEDIA if (path / name).is_file() and _captions(path) is not None), None)
    return path if path.name in _MEDIA and _captions(path.parent) is not None else None


def _captions(folder: Path) -> Path | None:
    return next((folder / name for name in _CAPTIONS if (folder / name).is_file()), None)


def _read(path: Path, _root: Path) -> Iterator[Row | Refusal]:
    other = _captions(path.parent)
    if other is None:
        raise InputFileError(f"There is none of {', '.join(_CAPTIONS)} beside {path}.")
    names, captions = lines_of(path), lines_of(other)
    if len(names) != len(captions):
        raise InputFileError(
            f"{path} has {len(names)} lines and {other.name} {len(captions)}: which caption belongs to which file is "
            "not known. Give both the same number of lines; empty ones count."
        )
    for number, (name, caption) in enumerate(zip(names, captions, strict=True), 1):
        yield Row(f"{path.name} line {number}", name, caption)


register_reader(Reader("two-lists", f"{_MEDIA[0]} and {_CAPTIONS[0]}, line by line", _find, _read))
