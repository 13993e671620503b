"""One engine for renaming keys; the maps are data beside each model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from muybridge.errors import CheckpointError


@dataclass(frozen=True)
class KeyMap:
    """How keys of a published file become keys of a model.

    Attributes:
        strip_prefixes: taken off the front of every key that has one of them.
        keep: regular expression that a key must contain, or it is left out.
        drop: regular expression of keys to leave out.
        replace: (regular expression, replacement) pairs, applied in order.
    """

    strip_prefixes: tuple[str, ...] = ()
    keep: str = ""
    drop: str | None = None
    replace: tuple[tuple[str, str], ...] = ()

    def rename(self, key: str) -> str | None:
        """The new key, or None where the key is left out."""
        for prefix in self.strip_prefixes:
            key = key.removeprefix(prefix)
        if not re.search(self.keep, key) or (self.drop is not None and re.search(self.drop, key)):
            return None
        for pattern, replacement in self.replace:
            key = re.sub(pattern, replacement, key)
        return key


def apply_key_map(key_map: KeyMap, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dictionary.

    Raises:
        CheckpointError: two keys become the same.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, value in state.items():
        new = key_map.rename(key)
        if new is None:
            continue
        if new in renamed:
            raise CheckpointError(f"Keys {origin[new]!r} and {key!r} of the file both mean {new!r}.")
        renamed[new] = value
        origin[new] = key
    return renamed
