"""What videos are read from: paths, and files that lie inside others."""

from __future__ import annotations

from typing import IO, Literal, Protocol, runtime_checkable


@runtime_checkable
class MediaFile(Protocol):
    """A file that can be opened again and again, as a path can. What `str` makes of it stands in messages."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Open it from its beginning; what is opened can seek."""
        ...
