"""A file that lies uncompressed inside another, as in a tar."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal


@dataclass(frozen=True)
class PackedFile:
    """A stretch of bytes of a file.

    Attributes:
        archive: path of that file.
        member: its name in there.
        offset: where its bytes begin.
        size: how many there are.
    """

    archive: str
    member: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.member}"

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Its bytes, in memory."""
        with Path(self.archive).open(mode) as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))
