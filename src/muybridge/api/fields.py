"""Fields of a form or of JSON, as OpenAI's client, vLLM-Omni's and people send them, as one tree of plain values."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from muybridge.api.errors import ApiError
from muybridge.files.utf8 import is_utf8
from muybridge.types import SettingsDict

TEXTS = ("prompt", "negative_prompt", "user")
"""Fields whose text is never read as JSON."""
_NAME = re.compile(r"(?P<name>[^\[\]]{1,200})(?P<rest>(?:\[[^\[\]]{0,200}\])*)")
_PART = re.compile(r"\[([^\[\]]*)\]")
_MAX_DEPTH = 6


def tree(pairs: Iterable[tuple[str, str]]) -> SettingsDict:
    """Fields of a form by name; `a[b]` is the entry b of a, `a[]` one more of a list, JSON in a field is read.

    Raises:
        ApiError: a name that cannot be read, a field given twice, or JSON that is none, or a text that cannot be kept.
    """
    found: SettingsDict = {}
    for name, text in pairs:
        match = _NAME.fullmatch(name)
        parts = [] if match is None else _PART.findall(match["rest"])
        if match is None or len(parts) > _MAX_DEPTH:
            raise ApiError(400, f"The field {name[:80]!r} has a name that cannot be read.", param=name[:80])
        _check_texts([name, text], ascii(name[:80])[1:-1])
        top = match["name"]
        _put(found, [top, *parts], _value(name, text, is_text=top in TEXTS), name)
    return found


def parse_json(text: str | bytes, name: str) -> Any:
    """A value out of JSON that came with a call; `name` is the field, or what else it came in.

    Raises:
        ApiError: it is none, is nested deeply, or has numbers that JSON has not.
    """
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        _check_texts(found, name)
        return found
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"{name} cannot be read as JSON.", param=None if " " in name else name) from error


def _check_texts(value: Any, name: str) -> None:
    """Raises ApiError where a text has a character that no store keeps: NUL, or half of one."""
    if isinstance(value, str):
        if "\0" in value or not is_utf8(value):
            raise ApiError(400, f"{name}: a text has a character that is none.", param=None if " " in name else name)
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_texts(key, name)
            _check_texts(each, name)
    elif isinstance(value, list):
        for each in value:
            _check_texts(each, name)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond all numbers")
    return number


def _value(name: str, text: str, is_text: bool) -> Any:
    if is_text:
        return text
    if text[:1] in ("{", "["):
        return parse_json(text, name)
    return {"true": True, "false": False}.get(text, text)


def _put(place: Any, parts: list[str], value: Any, name: str) -> None:
    """Put a value where the parts of its name say; lists hold what was put before."""
    for part, following in itertools.pairwise(parts):
        place = _inside(place, part, following, parts[-1], name)
    if isinstance(place, list):
        place.append(value)
    elif parts[-1] in place:
        raise ApiError(400, f"The field {name[:80]} is given twice.", param=name[:80])
    else:
        place[parts[-1]] = value


def _inside(place: Any, part: str, following: str, last: str, name: str) -> Any:
    """The list or mapping that a part of a name stands for, made where there is none."""
    new: Any = [] if following == "" else {}
    if isinstance(place, list):
        # One more of the list begins when the last one has the entry already.
        if not place or not isinstance(place[-1], dict) or last in place[-1]:
            place.append(new)
        return place[-1]
    found = place.setdefault(part, new)
    if type(found) is not type(new):
        raise ApiError(400, f"The field {name[:80]} does not go with the ones before it.", param=name[:80])
    return found
