"""What all tests share: one thread, no network, and the cases recorded from the original programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

# Before any test module imports a library that reads it.
os.environ["HF_HUB_OFFLINE"] = "1"

GOLDEN_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"

GoldenLoader = Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shipped_model() -> str:
    """The name of the model in the package; what needs it fails where it is missing, for then the package is broken."""
    from muybridge.checkpoints import locate_model

    name = "demo/animatediff"
    locate_model(name)
    return name


@pytest.fixture(scope="session")
def golden() -> GoldenLoader:
    """A loader: name of a case -> (tensors by name, its description); a manifest has no tensors.

    The folder is not part of the repository, so the tests that need it are skipped where it is absent.
    """
    if not GOLDEN_FOLDER.is_dir():
        pytest.skip(f"the recorded cases are not at {GOLDEN_FOLDER}")

    def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        description = json.loads((GOLDEN_FOLDER / f"{name}.json").read_text())
        tensors = GOLDEN_FOLDER / f"{name}.safetensors"
        return (load_file(tensors) if tensors.exists() else {}), description

    return load
