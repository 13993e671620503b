"""VAEs of pictures and of videos, trained to give clips back, with discriminators or without."""

from __future__ import annotations

import torch
from torch import Tensor

from muybridge.training.data import Batch, BatchSource
from muybridge.training.methods.vae import JudgedVAEMethod
from muybridge.vae import AutoencoderKLMagvit


class NumberedSteps:
    """Batches that say which step of the run they are of, as `step`, a number from 0.

    So what begins late in a run needs no counter of its own, and a run that goes on is the same.
    """

    def __init__(self, source: BatchSource, batches_per_step: int) -> None:
        """`batches_per_step` is over all processes."""
        self.source = source
        self.batches_per_step = batches_per_step

    def __call__(self, index: int) -> Batch:
        """Make batch number `index`."""
        return {**self.source(index), "step": torch.tensor(index // self.batches_per_step)}


class AutoencoderMethod(JudgedVAEMethod):
    """A VAE on clips and, where its loss has some, the discriminators beside it.

    The discriminators are trained by the same optimizer in the same step: the gradient of each term reaches only what
    is to learn from it. So their state is that of any parameter, and nothing of a run is kept elsewhere.

    Batches: `pixels [b, f, 3, h, w]` in [-1, 1], of which a VAE of pictures takes each frame by itself, and `step`, a
    number.
    """

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of the VAE and of the discriminators, and its terms."""
        self.begin_step(int(batch["step"]))
        pixels = batch["pixels"]
        if not isinstance(self.vae, AutoencoderKLMagvit):
            pixels = pixels.flatten(0, 1)
        return super().forward({**batch, "pixels": pixels}, generator)
