"""JSON files that lie beside weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muybridge.errors import CheckpointError


def read_json_object(path: Path, content: str) -> dict[str, Any]:
    """Read a file with one JSON object.

    Args:
        path: the file.
        content: what the object is, for messages: "the settings of a model".

    Raises:
        CheckpointError: missing, unreadable, no JSON, or no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise CheckpointError(f"{path} cannot be read: it is not JSON. Get it again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not {content}. Get it again.")
    return found
