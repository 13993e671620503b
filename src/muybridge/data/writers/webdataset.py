"""WebDataset: tar files of clips with their captions."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from muybridge.data.record import PACKED, Record
from muybridge.data.writers.places import check_whole, content_of, measures_of, suffix_of
from muybridge.errors import ConfigError
from muybridge.files.new_folder import new_model_folder

SHARD_BYTES = 512 << 20


def write_webdataset(records: Sequence[Record], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `train-000000.tar` and so on into a new folder, which appears when all of them are complete.

    Members are named by the records' ids, as a dot in a name would split it. The same records give the same bytes.

    Args:
        records: whole files.
        folder: that is to be made.
        shard_bytes: about how large a tar becomes.

    Raises:
        ConfigError: some records are parts of files, or folders.
        InputFileError: a file cannot be read.
        OutputError: the folder is there already, or cannot be written.
    """
    check_whole(records, "WebDataset")
    if pictures := [record.name for record in records if os.path.isdir(record.media)]:  # noqa: PTH112
        raise ConfigError(
            f"WebDataset holds files, and {pictures[0]} is a folder of pictures. Save it as a video first."
        )
    keys = _keys(records)
    with new_model_folder(folder) as temporary:
        waiting = deque(zip(keys, records, strict=True))
        number = 0
        while waiting:
            with tarfile.open(temporary / f"train-{number:06}.tar", "w", format=tarfile.PAX_FORMAT) as archive:
                while waiting and archive.offset < shard_bytes:
                    key, record = waiting.popleft()
                    for name, content in _members(key, record):
                        info = tarfile.TarInfo(name)
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
            number += 1


def _keys(records: Sequence[Record]) -> list[str]:
    """Of each record its id, with a number where a file is there twice."""
    seen: dict[str, int] = {}
    keys: list[str] = []
    for record in records:
        count = seen[record.id] = seen.get(record.id, 0) + 1
        keys.append(record.id if count == 1 else f"{record.id}-{count}")
    return keys


def _members(key: str, record: Record) -> Iterator[tuple[str, bytes]]:
    yield f"{key}{suffix_of(record)}", content_of(record)
    yield f"{key}.txt", record.text.encode()
    said = {**record.extra, **measures_of(record)}
    said.pop(PACKED, None)
    if said:
        yield f"{key}.json", json.dumps(said, sort_keys=True).encode()
