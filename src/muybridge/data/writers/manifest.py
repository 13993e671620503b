"""This program's own list: one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from muybridge.data.record import Record
from muybridge.data.writers.places import path_from
from muybridge.files.atomic import new_file


def write_manifest(records: Iterable[Record], path: Path) -> None:
    """Write records sorted by id, so that the same ones give the same bytes. Files below the list are named from there.

    Raises:
        OutputError: it cannot be written.
    """
    with new_file(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        for record in sorted(records, key=lambda record: (record.id, record.media, record.text)):
            values = {**record.to_json(), "media": path_from(path.parent, record.media)}
            file.write(json.dumps(values, sort_keys=True) + "\n")
