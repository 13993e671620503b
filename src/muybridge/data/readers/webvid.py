"""WebVid's list: a CSV file with `videoid`, `name` and `page_dir`, as AnimateDiff reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muybridge.data.readers.registry import Reader, register_reader
from muybridge.data.readers.row import Row, rest_of
from muybridge.data.readers.tables import csv_header, csv_rows, only_file
from muybridge.data.record import Refusal


def _find(path: Path) -> Path | None:
    return only_file(path, _is_list, "videoid and name")


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and {"videoid", "name"} <= csv_header(path)


def _read(path: Path, root: Path) -> Iterator[Row | Refusal]:
    for where, values in csv_rows(path):
        if isinstance(values, Refusal):
            yield values
            continue
        name = f"{values['videoid']}.mp4" if values["videoid"] else ""
        # AnimateDiff keeps all files in one folder, the publisher in one a page.
        below = str(Path(values.get("page_dir", ""), name))
        media = below if name and (root / below).is_file() else name
        yield Row(where, media, values["name"], "video", extra=rest_of(values, "name"))


register_reader(Reader("webvid", "a CSV file with videoid and name, and the files VIDEOID.mp4", _find, _read))
