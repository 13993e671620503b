"""The name that somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(name: str, known: Iterable[str], otherwise: str = ".") -> str:
    """The end of a sentence about an unknown name: "; did you mean 'x'?", or `otherwise`."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else otherwise
