"""The tiny models of the transformer's demo."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from muybridge.demo import easyanimate_models, models, render
from muybridge.errors import CheckpointError

TOKENIZER = models.make_tokenizer()


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (lambda: easyanimate_models.make_video_vae(models.make_vae()), 2.4),
        (lambda: easyanimate_models.make_text_encoder(TOKENIZER), 0.5),
        (easyanimate_models.make_vision_encoder, 0.6),
        (easyanimate_models.make_transformer, 4.6),
    ],
    ids=["vae", "text", "vision", "transformer"],
)
def test_models_are_as_small_as_their_docstrings_say(make, millions):
    model: nn.Module = make()

    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


def test_the_video_vae_begins_as_the_image_vae():
    torch.manual_seed(0)
    image_vae: Any = models.make_vae().eval()
    video_vae: Any = easyanimate_models.make_video_vae(image_vae).eval()
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1

    with torch.no_grad():
        expected = image_vae.encode(pixels).latent_dist.parameters
        found = video_vae.encode(pixels[:, :, None]).latent_dist.parameters[:, :, 0]
        decoded = video_vae.decode(found[:, :4, None]).sample[:, :, 0]
        expected_pixels = image_vae.decode(found[:, :4]).sample

    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(decoded, expected_pixels, atol=1e-4)


def test_an_image_vae_of_another_kind_is_refused():
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "mid_block_add_attention": False,
    }

    with pytest.raises(CheckpointError, match="image VAE"):
        easyanimate_models.make_video_vae(AutoencoderKL(**settings))


def test_the_models_fit_together():
    vae = easyanimate_models.make_video_vae(models.make_vae())
    transformer = easyanimate_models.make_transformer()
    config = transformer.transformer_config

    assert config.in_channels == 3 * vae.config["latent_channels"] == 3 * config.out_channels
    assert config.sample_size == render.FRAME_SIZE // vae.spatial_factor
    assert config.caption_channels == easyanimate_models.make_text_encoder(TOKENIZER).config.d_model
    assert transformer.motion_adapter is not None
    assert transformer.motion_adapter.trained_frames == vae.num_latent_frames(render.CLIP_FRAMES)


def test_motion_modules_alternate_as_in_the_original():
    adapter = easyanimate_models.make_transformer().motion_adapter
    assert adapter is not None

    reaches = [getattr(module.config, "attentions", None) for _, module in adapter.motion_modules()]

    assert reaches[:3] == [("temporal", "temporal"), ("temporal", "global"), ("temporal", "temporal")]
    assert len(reaches) == 7
