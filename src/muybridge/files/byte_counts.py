"""Numbers of bytes as people write them."""

from __future__ import annotations

import math
import re

from muybridge.errors import ConfigError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def parse_bytes(text: str) -> int:
    """A number of bytes as people write it: "12GB", "800 MiB", "6e9".

    Raises:
        ConfigError: it is not one.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*(|[KMG]I?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"A budget is a number of bytes, as in 12GB or 800MiB; given {text!r}.")
    count = float(match.group(1)) * _UNITS[match.group(2).upper()]
    if not math.isfinite(count):
        raise ConfigError(f"A budget is a number of bytes, as in 12GB or 800MiB; given {text!r}.")
    return int(count)
