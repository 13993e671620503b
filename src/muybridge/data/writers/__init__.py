"""Sets of clips and pictures as files of other programs, and as this one's manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from muybridge.data.record import Record
from muybridge.data.writers.easyanimate import write_easyanimate
from muybridge.data.writers.folder_metadata import write_folder
from muybridge.data.writers.manifest import write_manifest
from muybridge.data.writers.webdataset import write_webdataset

WRITERS: dict[str, Callable[[Sequence[Record], Path], None]] = {
    "easyanimate": write_easyanimate,
    "videofolder": write_folder,
    "webdataset": write_webdataset,
    "manifest": write_manifest,
}
"""What writes records to a path, by the name of the format."""

__all__ = ["WRITERS", "write_easyanimate", "write_folder", "write_manifest", "write_webdataset"]
