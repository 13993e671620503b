"""Sets of clips and pictures as files of other programs, and as this one's manifest."""

from __future__ import annotations

from muybridge.data.writers.easyanimate import write_easyanimate
from muybridge.data.writers.folder_metadata import write_folder
from muybridge.data.writers.manifest import write_manifest
from muybridge.data.writers.webdataset import write_webdataset

__all__ = ["write_easyanimate", "write_folder", "write_manifest", "write_webdataset"]
