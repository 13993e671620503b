"""Where a record's file stands, as a list beside it says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from muybridge.data.crop import CROP
from muybridge.data.packed import PackedFile
from muybridge.data.record import Record
from muybridge.errors import ConfigError, InputFileError
from muybridge.types import SettingsDict


def path_from(folder: Path, media: str) -> str:
    """Relative to `folder` if it is in there, else absolute, so that it is found from anywhere."""
    absolute, start = os.path.abspath(media), os.path.abspath(folder)  # noqa: PTH100  # links stay as they are named
    return os.path.relpath(absolute, start) if absolute.startswith(start + os.sep) else absolute


def check_whole(records: Iterable[Record], format_name: str) -> None:
    """Whether every record is a whole file with all of its picture, where a format has no other.

    Raises:
        ConfigError: some are parts of files or of their pictures, or lie inside others.
    """
    unfit = [record.name for record in records if record.is_part or CROP in record.extra]
    if unfit:
        more = f" and {len(unfit) - 1} more" if len(unfit) > 1 else ""
        raise ConfigError(
            f"{format_name} lists whole files, and these are parts: {unfit[0]}{more}. Write a manifest, or clips of "
            "their own first."
        )


def check_loose(records: Iterable[Record], format_name: str) -> None:
    """Raises ConfigError where a record's file lies inside another, which a list cannot name."""
    packed = [record.name for record in records if isinstance(record.source, PackedFile)]
    if packed:
        raise ConfigError(f"{format_name} cannot name files that lie inside others, as {packed[0]}. Write a folder.")


def measures_of(record: Record) -> SettingsDict:
    """Size, rate and number of frames, as far as they are known, for what lists say beside the file's name."""
    measures = {"width": record.width, "height": record.height, "fps": record.fps, "frames": record.frames}
    return {name: value for name, value in measures.items() if value is not None}


def suffix_of(record: Record) -> str:
    """Of its file, such as `.mp4`."""
    source = record.source
    name = source.member if isinstance(source, PackedFile) else record.media
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # names inside archives are no paths of this system


def content_of(record: Record) -> bytes:
    """The bytes of its file.

    Raises:
        InputFileError: it cannot be read, or is a folder.
    """
    try:
        with record.source.open("rb") as file:
            return file.read()
    except OSError as error:
        raise InputFileError(f"{record.name} cannot be read: {error.strerror}.") from error
