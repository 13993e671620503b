"""EasyAnimate's list in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from muybridge.data.readers.row import FURTHER_FILES
from muybridge.data.record import Record
from muybridge.data.writers.places import check_loose, check_whole, measures_of, path_from
from muybridge.files.atomic import new_file


def write_easyanimate(records: Sequence[Record], path: Path) -> None:
    """Write a list that EasyAnimate takes, with the list's folder as the data root. What is in `extra` goes with it.

    Raises:
        ConfigError: some records are parts of files, or lie inside others.
        OutputError: it cannot be written.
    """
    check_whole(records, "EasyAnimate's format")
    check_loose(records, "EasyAnimate's format")
    rows: list[dict[str, object]] = []
    for record in records:
        # The original takes what has no type for a picture.
        row = {"file_path": path_from(path.parent, record.media), "text": record.text, "type": record.kind}
        others = {name: record.extra[name] for name in FURTHER_FILES if isinstance(record.extra.get(name), str)}
        row |= {name: path_from(path.parent, other) for name, other in others.items() if other}
        rows.append({**record.extra, **row, **measures_of(record)})
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")
