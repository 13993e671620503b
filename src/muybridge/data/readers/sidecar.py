"""Files with captions beside them: `a.mp4` and `a.txt`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muybridge.data.readers.folders import files_below, media_below
from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import Row
from muybridge.data.readers.tables import read_text
from muybridge.data.record import Refusal, kind_by_name
from muybridge.errors import InputFileError


def _find(path: Path) -> Path | None:
    return path if path.is_dir() and next(media_below(path), None) is not None else None


def _read(path: Path, _root: Path) -> Iterator[Row | Refusal]:
    files = list(files_below(path))
    captions = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    used: set[Path] = set()
    for file in files:
        where = str(file.relative_to(path))
        if kind_by_name(file.name) is not None:
            caption = captions.get(file.with_suffix(""))
            used |= {caption} if caption is not None else set()
            yield _row(where, file, caption)
        elif file.suffix.lower() != ".txt":
            yield Refusal(where, "it is no video or picture, by its name, and no caption", "unknown-kind")
    for file in captions.values():
        if file not in used:
            yield Refusal(str(file.relative_to(path)), "there is no video or picture of this name", "no-file")


def _row(where: str, file: Path, caption: Path | None) -> Row | Refusal:
    try:
        return Row(where, str(file.absolute()), "" if caption is None else read_text(caption))
    except InputFileError as error:
        return Refusal(where, str(error), "caption")


register_reader(Reader("sidecar", "a folder of videos and pictures, with captions in NAME.txt", _find, _read))
