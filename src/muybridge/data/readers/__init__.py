"""Sets of clips and pictures in the formats that programs have for them, each into records and refusals."""

from __future__ import annotations

from muybridge.data.readers.reading import ReadDataset, read_dataset
from muybridge.data.readers.registry import Reader, reader_names, register_reader

__all__ = ["ReadDataset", "Reader", "read_dataset", "reader_names", "register_reader"]
