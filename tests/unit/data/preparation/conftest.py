"""Models and clips that are made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.data.conftest import ClipMaker
from tests.unit.data.preparation import small_models

from muybridge.data.probe import probe
from muybridge.data.record import Record


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where a small model of a kind lies: `clip`, `siglip`, `llava`, or `language_model`."""
    folder = tmp_path_factory.mktemp("models")

    def made(kind: str) -> Path:
        path = folder / kind
        return path if path.is_dir() else getattr(small_models, f"write_{kind}")(path)

    return made


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory, make_clip: ClipMaker) -> Record:
    """A clip of one second, which gets brighter."""
    path = make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", size=(64, 48))
    found = probe(Record("0123456789abcdef", str(path), "video"))
    assert isinstance(found, Record)
    return found
