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
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise error_class(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise error_class(f"{path} cannot be read: it is not JSON. {advice}") from error
    if not isinstance(found, dict):
        raise error_class(f"{path} holds a {type(found).__name__}, not {content}. {advice}")
    return found
