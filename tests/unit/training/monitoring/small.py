"""The smallest networks that take noise off, and a trainer as observers see one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from muybridge.training.data import BatchSource
from muybridge.training.methods.denoise import denoising_loss
from muybridge.training.monitoring.observing import Update
from muybridge.training.objective.diffusion import DiffusionObjective, Drawn
from muybridge.types import SettingsDict

FRAMES = 4


@dataclass
class Trainer:
    """What observers see of one."""

    method: nn.Module
    folder: Path
    last_update: Mapping[str, Update] = field(default_factory=dict)


class Whole(nn.Module):
    """A convolution within the frames; all of it is trained."""

    def __init__(self, steps: int = 1000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.objective = DiffusionObjective(DDIMScheduler(num_train_timesteps=steps, clip_sample=False))
        self.within = nn.Conv3d(3, 3, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return denoising_loss(self, batch, generator)

    def encode(self, batch: dict[str, Tensor]) -> tuple[Tensor, SettingsDict]:
        return batch["pixels"].transpose(1, 2), {}

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        return self.within(drawn.noisy)


class Adapted(Whole):
    """The same frozen, with a convolution along time beside it that is trained and begins with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)
        self.along = nn.Conv3d(3, 3, (3, 1, 1), padding=(1, 0, 0))
        nn.init.zeros_(self.along.weight)
        nn.init.zeros_(self.along.bias)  # type: ignore[arg-type]
        self.is_on = True

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        return super().predict(drawn, told) + (self.along(drawn.noisy) if self.is_on else 0.0)

    @contextmanager
    def without(self) -> Iterator[None]:
        self.is_on = False
        yield
        self.is_on = True


def batches(seed: int) -> BatchSource:
    """Clips in which a bright stripe moves."""

    def batch(index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        pixels = torch.rand(2, FRAMES, 3, 8, 8, generator=generator) - 1
        for frame in range(FRAMES):
            pixels[:, frame, :, :, 2 * frame : 2 * frame + 2] += 1
        return {"pixels": pixels}

    return batch
