"""VideoFolder of Hugging Face: files, and `metadata.jsonl` beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from muybridge.data.packed import PackedFile
from muybridge.data.record import PACKED, Record
from muybridge.data.writers.places import check_whole, content_of, measures_of, path_from, suffix_of
from muybridge.errors import ConfigError, OutputError
from muybridge.files.atomic import new_file, output_error

METADATA = "metadata.jsonl"


def write_folder(records: Sequence[Record], folder: Path) -> None:
    """Write `metadata.jsonl` into a folder; files that are not in there yet are copied, and named by their ids.

    The list is written last: where it is, all its files are.

    Raises:
        ConfigError: some records are parts of files, or folders of pictures.
        InputFileError: a file cannot be read.
        OutputError: the folder cannot be written.
    """
    check_whole(records, "VideoFolder")
    if pictures := [record.name for record in records if os.path.isdir(record.media)]:  # noqa: PTH112
        raise ConfigError(
            f"VideoFolder lists files, and {pictures[0]} is a folder of pictures. Save it as a video first."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    rows = [_row(record, folder) for record in records]
    with new_file(folder / METADATA) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def _row(record: Record, folder: Path) -> dict[str, object]:
    name = path_from(folder, record.media)
    is_packed = isinstance(record.source, PackedFile)
    if is_packed or os.path.isabs(name):  # noqa: PTH117
        name = f"{record.id}{suffix_of(record)}"
        _copy(record, folder / name)
    extra = {column: value for column, value in record.extra.items() if column != PACKED}
    return {**extra, **measures_of(record), "file_name": name, "text": record.text}


def _copy(record: Record, target: Path) -> None:
    content = content_of(record)
    # Named by its content: one that is there whole is the same.
    if target.is_file() and target.stat().st_size == len(content):
        return
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is a folder, and a clip is to be copied there. Choose another folder.")
    with new_file(target) as temporary:
        temporary.write_bytes(content)
