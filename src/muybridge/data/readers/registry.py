"""Formats of sets by their names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from muybridge.data.readers.row import Row
from muybridge.data.record import Record, Refusal
from muybridge.errors import ConfigError

_SHIPPED = ("manifest", "easyanimate", "webvid", "folder_metadata", "musubi", "webdataset", "two_lists", "sidecar")
"""Modules of this folder that register a format, in the order in which a set is tried to be recognised by them."""
_READERS: dict[str, Reader] = {}

Found = Row | Record | Refusal


@dataclass(frozen=True)
class Reader:
    """A format of sets.

    Attributes:
        name: what it is called in settings.
        needs: what has to be there, in words.
        find: from what a user names to what is read: that file, one inside that folder, or the folder itself; None
            where it is no set of this format.
        read: (what was found, the folder that names of files start from) -> what is in it, in its order.
        is_plain: whether what was found is a set of this format where nobody said so; where it may well be another.
    """

    name: str
    needs: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path, Path], Iterator[Found]]
    is_plain: Callable[[Path], bool] = lambda _: True


def register_reader(reader: Reader) -> Reader:
    """Make a format known; one of the same name is replaced."""
    _READERS[reader.name] = reader
    return reader


def readers() -> list[Reader]:
    """All formats in the order in which a set is tried to be recognised."""
    for module in _SHIPPED:
        importlib.import_module(f"muybridge.data.readers.{module}")
    return list(_READERS.values())


def reader_names() -> list[str]:
    """Names of all formats."""
    return [reader.name for reader in readers()]


def reader_of_name(name: str) -> Reader:
    """The format of a name.

    Raises:
        ConfigError: there is none.
    """
    known = {reader.name: reader for reader in readers()}
    if name not in known:
        raise ConfigError(f"There is no format of sets {name!r}. There are: {', '.join(known)}.")
    return known[name]
