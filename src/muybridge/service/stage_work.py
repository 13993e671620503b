"""What a stage of a training run is to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from muybridge.training.trainer import BatchSource


class SavablePart(Protocol):
    """A model of diffusers or transformers."""

    def save_pretrained(self, save_directory: Path, /) -> Any:
        """Write a folder."""


class StageWork(ABC):
    """A stage made ready: its method, its batches, and what it hands out once trained."""

    method: nn.Module
    batches: BatchSource

    @abstractmethod
    def trained_parts(self) -> dict[str, SavablePart]:
        """Parts of the pipeline by name, with the weights that `method` holds now."""


def exported_part(output: Path, method: str, part: str = "") -> Path:
    """Where a finished stage of the run in `output` leaves its parts."""
    return output / method / "exported" / part
