"""JSON files with one object: settings beside weights, indexes, and records of this program's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muybridge.errors import CheckpointError, MuybridgeError


def read_json_object(
    path: Path,
    content: str,
    error_class: type[MuybridgeError] = CheckpointError,
    advice: str = "Get it again.",
) -> dict[str, Any]:
    """Read a file with one JSON object.

    Args:
        path: the file.
        content: what the object is, for messages: "the settings of a model".
        error_class: of what is raised.
        advice: what to do about a file that is something else, as a sentence.

    Raises:
        MuybridgeError: of `error_class`; missing, unreadable, no JSON, or no object.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise error_class(f"{path} cannot be read ({error.strerror}).") from error
    return parse_json_object(text, str(path), content, error_class, advice)


def parse_json_object(
    text: str | bytes,
    source: str,
    content: str,
    error_class: type[MuybridgeError] = CheckpointError,
    advice: str = "Get it again.",
) -> dict[str, Any]:
    """The one JSON object of a text; `source` is where it is from, the rest as of `read_json_object`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise error_class(f"{source} cannot be read: it is not JSON. {advice}") from error
    if not isinstance(found, dict):
        raise error_class(f"{source} holds a {type(found).__name__}, not {content}. {advice}")
    return found
