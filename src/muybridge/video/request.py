"""The request as the text that travels in a file."""

from __future__ import annotations

import json

from muybridge.errors import ConfigError
from muybridge.types import SettingsDict, SettingsView

MAX_REQUEST_BYTES = 1 << 20


def request_to_text(request: SettingsView) -> str:
    """The request as JSON in ASCII, which every container holds unchanged, whatever its idea of a character set.

    Raises:
        ConfigError: the request holds what JSON cannot express, or its JSON is over 1 MiB.
    """
    try:
        text = json.dumps(dict(request), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The request cannot be written as JSON: {error}. Use text, finite numbers, booleans, None, lists and "
            "mappings with text keys, or save with embed_request=False."
        ) from error
    if len(text) > MAX_REQUEST_BYTES:
        raise ConfigError(
            f"The request is {len(text)} bytes of JSON; a file takes at most {MAX_REQUEST_BYTES}. Leave out what is "
            "large, or save with embed_request=False."
        )
    return text


def text_to_request(text: str | None) -> SettingsDict | None:
    """The request in a file's comment, or None where the comment is something else; never raises, never runs code."""
    if text is None or len(text) > MAX_REQUEST_BYTES:
        return None
    try:
        request = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
