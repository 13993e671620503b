"""Which file it was: digests of what a video was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from muybridge.errors import InputFileError
from muybridge.video.picture_folder import numbered_pictures

_SHOWN = 100  # letters of a name in messages: one in a damaged file may have any number


def digest_of(name: str) -> str | None:
    """SHA-256 of a file; of a folder, of the names and digests of the numbered pictures in it. None if missing.

    Raises:
        InputFileError: it cannot be read.
    """
    path = Path(name)
    try:
        if path.suffix.lower() == ".png" and not path.exists():
            path = path.with_suffix("")  # the folder that saving at that name makes, and that is read by it
        if path.is_dir():
            pictures = sorted(numbered_pictures(path)[0])
            listed = "".join(f"{each.name} {_digest_of_file(each)}\n" for each in pictures)
            return hashlib.sha256(listed.encode()).hexdigest()
        return _digest_of_file(path) if path.is_file() else None
    except OSError as error:
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        raise InputFileError(
            f"{shown} cannot be read ({error.strerror or error}). See to it that it can, or name another file."
        ) from error


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
