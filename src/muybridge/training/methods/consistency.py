"""Distilling a video model to a few steps, as a LoRA of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muybridge.training.data import Batch
from muybridge.training.methods.denoise import DenoisingMethod
from muybridge.training.methods.lora import LoraMethod
from muybridge.training.objective.consistency import ConsistencyObjective


class ConsistencyMethod(nn.Module):
    """A LoRA learns to say at any noise what the model with it says a step of the model without it further on.

    So the end of the way is known from its beginning, and videos take a few steps, without guidance. The teacher is the
    same network without the LoRA, so it takes no memory; the target is the student itself as it is, without gradient.

    Batches: those of the denoising method, and `empty_ids`, `empty_mask` `[b, n]` of the empty caption.
    """

    def __init__(self, lora: LoraMethod, objective: ConsistencyObjective) -> None:
        """Train `lora`, which holds a `DenoisingMethod`."""
        super().__init__()
        self.lora = lora
        self.objective = objective

    @property
    def denoising(self) -> DenoisingMethod:
        """Networks, and what their family makes of a batch."""
        method: DenoisingMethod = self.lora.method  # type: ignore[assignment]
        return method

    @property
    def rate_factors(self) -> dict[str, float]:
        """As of the LoRA."""
        return {f"lora.{name}": factor for name, factor in self.lora.rate_factors.items()}

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """How far the student is from itself, a step of the teacher further on."""
        networks, how, objective = self.denoising, self.denoising.how, self.objective
        with torch.no_grad():
            stretch = objective.draw(how.latents(networks, batch), generator)
            told = how.told(networks, batch)
            with self.lora.without():
                conditional = self._predict(stretch.noisy, stretch.start, told)
                unconditional = self._predict(stretch.noisy, stretch.start, self._untold(batch, told))
            further = objective.step(stretch, conditional, unconditional)
            target = objective.target(stretch, self._predict(further.to(stretch.noisy), stretch.end, told), further)
        said = objective.said(stretch, self._predict(stretch.noisy, stretch.start, told))
        return {"loss": objective.loss(said, target)}

    def _predict(self, noisy: Tensor, timesteps: Tensor, told: dict) -> Tensor:
        return self.denoising.backbone(noisy, timesteps, **told).sample[:, : noisy.shape[1]].float()

    def _untold(self, batch: Batch, told: dict) -> dict:
        networks, how = self.denoising, self.denoising.how
        empty = {**batch, "input_ids": batch["empty_ids"], "attention_mask": batch["empty_mask"]}
        if how.text is None:
            return how.told(networks, empty)
        return {**told, **how.text(networks, empty)}
