"""Text encoders, taught by pictures what words mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionModelWithProjection, T5EncoderModel

from muybridge.training.data import Batch


class ContrastiveTextMethod(nn.Module):
    """CLIP's contrastive loss between captions and pictures: gives the text encoder words that mean pictures.

    Batches: `pixels [b, 3, h, w]` in [-1, 1], `input_ids [b, n]`.
    """

    def __init__(self, clip: CLIPModel) -> None:
        """Train both towers; only the text tower is used afterwards."""
        super().__init__()
        self.clip = clip

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and the share of pictures whose own caption is the nearest of the batch."""
        output = self.clip(input_ids=batch["input_ids"], pixel_values=batch["pixels"])
        return _matching(output.logits_per_image.float())


class ContrastiveT5Method(nn.Module):
    """CLIP's contrastive loss between captions and pictures for a T5 encoder, so that its words mean something.

    Batches: `pixels [b, 1, 3, h, w]` in [-1, 1], `input_ids [b, n]`, `attention_mask [b, n]`.
    """

    def __init__(self, text_encoder: T5EncoderModel, vision_encoder: CLIPVisionModelWithProjection) -> None:
        """Train both, and a projection of the mean text state; only the text encoder is used afterwards."""
        super().__init__()
        self.text_encoder = text_encoder
        self.vision_encoder = vision_encoder
        self.projection = nn.Linear(text_encoder.config.d_model, vision_encoder.config.projection_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss, and the share of pictures whose own caption is the nearest of the batch."""
        mask = batch["attention_mask"]
        states = self.text_encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        weights = (mask / mask.sum(dim=1, keepdim=True))[:, :, None]
        texts = self.projection((states * weights).sum(dim=1)).float()
        pictures = self.vision_encoder(pixel_values=batch["pixels"][:, 0]).image_embeds.float()
        return _matching(self.log_scale.exp() * F.normalize(pictures, dim=1) @ F.normalize(texts, dim=1).mT)


def _matching(logits: Tensor) -> dict[str, Tensor]:
    """Loss and accuracy of likenesses `[pictures, captions]`, where those of equal number belong together."""
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
    return {"loss": loss, "accuracy": (logits.argmax(1) == target).float().mean()}
