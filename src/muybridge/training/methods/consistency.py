"""Distilling a video model to a few steps, as a LoRA of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muybridge.training.data import Batch
from muybridge.training.methods.denoise import DenoisingMethod
from muybridge.training.methods.lora import LoraMethod
from muybridge.training.objective.consistency import ConsistencyObjective, Stretch


class ConsistencyMethod(nn.Module):
    """A LoRA learns to say at any noise what the model with it says a step of the model without it further on.

    So the end of the way is known from its beginning, and videos take a few steps, without guidance. Of several phases
    the student may also learn where the teacher arrives by the end of each (`Distilling.target`). The teacher is the
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
        """How far the student is from itself, a step of the teacher further on, or from where the teacher arrives."""
        networks, how, objective = self.denoising, self.denoising.how, self.objective
        with torch.no_grad():
            stretch = objective.draw(how.latents(networks, batch), generator)
            told = how.told(networks, batch)
            last, target = self._taught(stretch, told, batch)
            if objective.settings.target == "consistency":
                target = objective.target(last, self._predict(target.to(last.noisy), last.end, told), target)
        said = objective.said(stretch, self._predict(stretch.noisy, stretch.start, told))
        return {"loss": objective.loss(said, target)}

    def _taught(self, stretch: Stretch, told: dict, batch: Batch) -> tuple[Stretch, Tensor]:
        """The last step that the teacher goes, and where it arrives."""
        objective = self.objective
        with self.lora.without():
            untold = self._untold(batch, told)
            further = self._step(stretch, told, untold)
            for _ in range(objective.teacher_steps - 1):
                stretch = objective.onward(stretch, further)
                further = self._step(stretch, told, untold)
        return stretch, further

    def _step(self, stretch: Stretch, told: dict, untold: dict) -> Tensor:
        said, unsaid = (self._predict(stretch.noisy, stretch.start, each) for each in (told, untold))
        return self.objective.step(stretch, said, unsaid)

    def _predict(self, noisy: Tensor, timesteps: Tensor, told: dict) -> Tensor:
        return self.denoising.backbone(noisy, timesteps, **told).sample[:, : noisy.shape[1]].float()

    def _untold(self, batch: Batch, told: dict) -> dict:
        networks, how = self.denoising, self.denoising.how
        empty = {**batch, "input_ids": batch["empty_ids"], "attention_mask": batch["empty_mask"]}
        if how.text is None:
            return how.told(networks, empty)
        return {**told, **how.text(networks, empty)}
