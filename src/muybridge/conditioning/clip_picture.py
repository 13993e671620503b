"""A picture as CLIP sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, CLIPVisionModelWithProjection


def embed_picture(
    processor: BaseImageProcessor, encoder: CLIPVisionModelWithProjection, picture: Image.Image
) -> Tensor:
    """CLIP's projected embedding of a picture, `[1, d]`, on the encoder's device and in its precision."""
    pixels = processor(images=picture, return_tensors="pt").pixel_values
    with torch.no_grad():
        return encoder(pixel_values=pixels.to(encoder.device, encoder.dtype)).image_embeds
