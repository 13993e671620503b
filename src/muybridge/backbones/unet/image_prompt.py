"""Image prompts in the U-Net: an attention to a picture beside every attention to the text.

Source: IP-Adapter, arXiv 2308.06721, "decoupled cross-attention".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from muybridge.backbones.unet.image_attention import ImageAttention, TextAndImage
from muybridge.backbones.unet.layers import SpatialTransformerBlock
from muybridge.errors import ConfigError, ShapeError


def text_and_image(
    unet: nn.Module, text: Tensor, image: Tensor | None, strength: float, batch: int
) -> Tensor | TextAndImage:
    """What the spatial transformers of `unet` attend to; at strength 0, and without a picture, the text alone.

    Raises:
        ConfigError: a picture for a U-Net without attention to one.
        ShapeError: not the tokens of a picture for each video.
    """
    if image is None:
        return text
    blocks = text_attention_blocks(unet).values()
    width = text.shape[-1]
    if image.ndim != 3 or len(image) != batch or image.shape[-1] != width:
        raise ShapeError(f"image_prompt must be [{batch}, m, {width}]; given {list(image.shape)}.")
    if any(block.image_attention is None for block in blocks):
        raise ConfigError("This U-Net has no attention to pictures; load an image prompt adapter first.")
    return text if strength == 0 else TextAndImage(text, image, strength)


def text_attention_blocks(unet: nn.Module) -> dict[str, SpatialTransformerBlock]:
    """The blocks that may attend to a picture, by name, in the order of IP-Adapter's files: the middle comes last."""
    found = {name: each for name, each in unet.named_modules() if isinstance(each, SpatialTransformerBlock)}
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(name: str) -> tuple[int, list[int]]:
    part = name.split(".", 1)[0]
    return ("down_blocks", "up_blocks", "mid_block").index(part), [int(number) for number in re.findall(r"\d+", name)]


def attach_image_attentions(unet: nn.Module, attentions: Mapping[str, ImageAttention]) -> None:
    """Put attentions to a picture into blocks, by name, in place of those there are.

    Each is moved to the device and precision of the text attention beside it.
    """
    blocks = text_attention_blocks(unet)
    for name, attention in attentions.items():
        weight = blocks[name].norm2.weight
        blocks[name].image_attention = attention.to(weight.device, weight.dtype).requires_grad_(False)


def detach_image_attentions(unet: nn.Module) -> dict[str, ImageAttention]:
    """Take the attentions to a picture out, and give them back by the names of their blocks."""
    taken: dict[str, ImageAttention] = {}
    for name, block in text_attention_blocks(unet).items():
        if block.image_attention is not None:
            taken[name] = block.image_attention
            block.image_attention = None
    return taken
