"""Our U-Net beside diffusers' `UNetMotionModel` on the same random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNetMotionModel
from diffusers.models.embeddings import SinusoidalPositionalEmbedding

from muybridge.backbones.unet import from_unet_motion_model

TINY = {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 32, "motion_num_attention_heads": 8}


def random_reference(**settings: Any) -> UNetMotionModel:
    with torch.device("meta"):
        reference = UNetMotionModel(motion_max_seq_length=32, use_motion_mid_block=True, **settings)
    generator = torch.Generator().manual_seed(0)
    reference.to_empty(device="cpu")
    for name, value in reference.state_dict().items():
        if name.endswith("pos_embed.pe"):
            continue
        scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
        value.uniform_(-scale, scale, generator=generator)
        if value.ndim == 1 and name.endswith("weight"):
            value.add_(1.0)
    for module in reference.modules():
        if isinstance(module, SinusoidalPositionalEmbedding):
            _, length, width = module.get_buffer("pe").shape
            module.get_buffer("pe").copy_(SinusoidalPositionalEmbedding(width, max_seq_length=length).get_buffer("pe"))
    return reference.eval()


def relative_error(settings: dict[str, Any], shape: tuple[int, ...], text_width: int) -> float:
    reference = random_reference(**settings)
    ours = from_unet_motion_model(reference)
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(shape, generator=generator)
    text = torch.randn(shape[0], 7, text_width, generator=generator)
    with torch.no_grad():
        # diffusers wants the text states repeated for every frame
        repeated = text.repeat_interleave(shape[2], dim=0)
        expected = reference(sample, torch.tensor(500), repeated).sample
        found = ours(sample, torch.tensor(500), text).sample
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("shape", [(1, 4, 5, 16, 16), (2, 4, 3, 12, 20), (1, 4, 1, 9, 11)])
def test_equals_diffusers_at_tiny_width(shape: tuple[int, ...]) -> None:
    assert relative_error(TINY, shape, 32) <= 1e-5


@pytest.mark.slow
def test_equals_diffusers_at_the_widths_of_sd15() -> None:
    assert relative_error({"cross_attention_dim": 768, "num_attention_heads": 8}, (1, 4, 2, 8, 8), 768) <= 1e-5
