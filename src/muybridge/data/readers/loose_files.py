"""Files that no list names, each with the caption that lies beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from muybridge.data.readers.row import Row
from muybridge.data.readers.tables import read_text
from muybridge.data.record import Refusal, kind_by_name
from muybridge.errors import InputFileError

_NO_MEDIA = "it is no video or picture, by its name, and no caption"


def loose_rows(folder: Path, files: Sequence[Path]) -> Iterator[Row | Refusal]:
    """A row for each video and picture among some files below a folder, and why the others are none."""
    captions = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    used: set[Path] = set()
    for file in files:
        where = str(file.relative_to(folder))
        if kind_by_name(file.name) is not None:
            caption = captions.get(file.with_suffix(""))
            used |= {caption} if caption is not None else set()
            yield _row(where, file, caption)
        elif file.suffix.lower() == ".tar":
            yield Refusal(where, f"{_NO_MEDIA}; a set in tar files is to be named by itself", "unknown-kind")
        elif file.suffix.lower() != ".txt":
            yield Refusal(where, _NO_MEDIA, "unknown-kind")
    for file in captions.values():
        if file not in used:
            yield Refusal(str(file.relative_to(folder)), "there is no video or picture of this name", "no-file")


def _row(where: str, file: Path, caption: Path | None) -> Row | Refusal:
    try:
        return Row(where, str(file.absolute()), "" if caption is None else read_text(caption))
    except InputFileError as error:
        return Refusal(where, str(error), "caption")
