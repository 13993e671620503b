"""Pictures as prompts: from pictures to the tokens that the U-Net attends to beside the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, CLIPVisionModelWithProjection

    from muybridge.checkpoints.image_prompt_files import ImagePromptAdapter


@dataclass(frozen=True)
class ImageTokens:
    """Tokens of an image prompt.

    Attributes:
        positive: `[1, m, d]`; those of several pictures follow each other.
        negative: of no picture, likewise; or None where guidance is off.
    """

    positive: Tensor
    negative: Tensor | None

    def for_videos(self, count: int, device: torch.device, dtype: torch.dtype) -> ImageTokens:
        """The same for each of `count` videos, on a device, in a precision."""
        negative = None if self.negative is None else self.negative.to(device, dtype).expand(count, -1, -1)
        return ImageTokens(self.positive.to(device, dtype).expand(count, -1, -1), negative)


@torch.no_grad()
def encode_image_prompt(
    adapter: ImagePromptAdapter,
    processor: BaseImageProcessor,
    encoder: CLIPVisionModelWithProjection,
    pictures: Sequence[Image.Image],
    guided: bool,
) -> ImageTokens:
    """Encode pictures; CLIP sees the square in the middle of each.

    The negative is what the adapters were trained with: for those that read CLIP's embedding an embedding of zeros, for
    those that read its patches the patches of a picture of zeros.

    Args:
        adapter: its projection must be on the encoder's device.
        processor: of the encoder.
        encoder: CLIP's image tower.
        pictures: at least one.
        guided: whether a negative is needed.
    """
    pixels = processor(images=list(pictures), return_tensors="pt").pixel_values.to(encoder.device, encoder.dtype)
    shown = _features(adapter, encoder, pixels)
    positive = adapter.projection(shown).flatten(0, 1)[None]
    if not guided:
        return ImageTokens(positive, None)
    nothing = torch.zeros_like(shown)
    if adapter.features == "patches":
        # All pictures of zeros look the same.
        nothing = _features(adapter, encoder, torch.zeros_like(pixels[:1])).expand_as(shown)
    return ImageTokens(positive, adapter.projection(nothing).flatten(0, 1)[None])


def _features(adapter: ImagePromptAdapter, encoder: CLIPVisionModelWithProjection, pixels: Tensor) -> Tensor:
    dtype = next(adapter.projection.parameters()).dtype
    if adapter.features == "embedding":
        return encoder(pixel_values=pixels).image_embeds.to(dtype)
    return encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2].to(dtype)
