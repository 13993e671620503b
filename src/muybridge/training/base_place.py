"""Where the model lies that training builds on."""

from __future__ import annotations

from pathlib import Path

from muybridge.checkpoints import locate_model


def place_of_base(model: str) -> Path:
    """Of a shipped model, a folder, a hub id, or a single file.

    Raises:
        CheckpointError: it is not there.
    """
    return Path(model) if Path(model).is_file() else Path(locate_model(model))
