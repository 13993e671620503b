"""Names in place of the paths that a video was made from, for files that are handed out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muybridge.errors import ConfigError
from muybridge.request import GenerateRequest
from muybridge.request.generate_request import DIGESTS
from muybridge.types import SettingsDict, SettingsView

_BY_FILE = ("loras", "embeddings")
"""Settings whose names are files."""


class PublicNames:
    """What a request is called outside of this machine: the same request with other names for its files and models."""

    def __init__(self, request: GenerateRequest, public: SettingsView) -> None:
        """Compare a request with its public form, value by value.

        Args:
            request: with the paths.
            public: the same as a document, with names in their place. What it lacks is left out of records where it
                is a place on this machine.

        Raises:
            ConfigError: `public` is no request.
        """
        self._names: dict[str, str] = {}
        self._hidden: set[str] = set()
        self._compare(request.plain(), GenerateRequest.parse(public).plain())

    def in_record(self, record: SettingsView) -> SettingsDict:
        """The record of a video with these names in it."""
        shown = self._renamed(record)
        if isinstance(digests := shown.get(DIGESTS), Mapping):
            shown[DIGESTS] = {name: digest for name, digest in digests.items() if not Path(name).is_absolute()}
        return shown

    def in_text(self, text: str) -> str:
        """A message for others with these names in it."""
        for place in sorted({*self._names, *self._hidden}, key=len, reverse=True):
            if _is_place(place):
                text = text.replace(place, self._names.get(place, "a file of this server"))
        return text

    def _compare(self, own: Any, other: Any, name: str = "") -> None:
        if isinstance(own, Mapping) and isinstance(other, Mapping):
            for pair in _pairs(own, other, name):
                self._compare_items(*pair)
        elif isinstance(own, (list, tuple)) and isinstance(other, (list, tuple)) and len(own) == len(other):
            for mine, its in zip(own, other, strict=True):
                self._compare(mine, its)
        elif isinstance(own, str) and isinstance(other, str):
            if own != other:
                self._note(own, other)
        elif own != other:
            self._hidden.update(_texts(own))

    def _compare_items(self, key: Any, value: Any, its_key: Any, its_value: Any) -> None:
        if its_key is None:
            self._hidden.update(_texts(value))
            return
        if key != its_key:
            self._note(str(key), str(its_key))
        self._compare(value, its_value, str(key))

    def _note(self, place: str, name: str) -> None:
        if self._names.setdefault(place, name) != name:
            raise ConfigError(
                f"The public request calls one file {self._names[place]} and {name}; use one name for it."
            )
        self._names[str(Path(place))] = name

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            shown = {key: each for key, each in value.items() if not (self._is_hidden(key) or self._is_hidden(each))}
            return {self._renamed(key): self._renamed(each) for key, each in shown.items()}
        if isinstance(value, (list, tuple)):
            return [self._renamed(each) for each in value if not self._is_hidden(each)]
        return self._names.get(value, value) if isinstance(value, str) else value

    def _is_hidden(self, value: object) -> bool:
        return isinstance(value, str) and value in self._hidden and value not in self._names and _is_place(value)


def _pairs(own: Mapping, other: Mapping, name: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Keys and values of both; where keys are files, in their order."""
    if name in _BY_FILE and len(own) == len(other):
        for (key, value), (its_key, its_value) in zip(own.items(), other.items(), strict=True):
            yield key, value, its_key, its_value
        return
    for key, value in own.items():
        yield (key, value, key, other[key]) if key in other else (key, value, None, None)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def _is_place(text: str) -> bool:
    return Path(text).is_absolute() or (os.sep in text and Path(text).exists())
