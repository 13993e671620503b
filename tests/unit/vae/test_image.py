"""Pictures to scaled latents and back."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from diffusers import AutoencoderKL

from muybridge.vae import decode_images, encode_images

SETTINGS: dict[str, Any] = {
    "block_out_channels": (16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
    "scaling_factor": 0.5,
}


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**SETTINGS).eval()


def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_latents_are_the_scaled_mean(vae: AutoencoderKL) -> None:
    latents = encode_images(vae, pixels())
    assert latents.shape == (3, 4, 4, 6)
    posterior: Any = vae.encode(pixels())
    assert torch.allclose(latents, posterior.latent_dist.mean * 0.5, atol=1e-6)


@torch.no_grad()
def test_decoding_takes_the_scale_off(vae: AutoencoderKL) -> None:
    latents = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    kept = latents.clone()
    found = decode_images(vae, latents)
    assert found.shape == (2, 3, 8, 12)
    decoded: Any = vae.decode(cast("Any", latents / 0.5))
    assert torch.allclose(found, decoded.sample, atol=1e-6)
    assert torch.equal(latents, kept)


@torch.no_grad()
def test_pictures_are_independent(vae: AutoencoderKL) -> None:
    together = decode_images(vae, encode_images(vae, pixels()))
    apart = [decode_images(vae, encode_images(vae, one)) for one in pixels().split(1)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


@torch.no_grad()
def test_a_half_precision_network_gives_float32(vae: AutoencoderKL) -> None:
    expected = encode_images(vae, pixels())
    decoded = decode_images(vae, expected)
    half = copy.deepcopy(vae).bfloat16()
    latents, images = encode_images(half, pixels()), decode_images(half, expected)
    assert latents.dtype == images.dtype == torch.float32
    assert (latents - expected).abs().max() <= 5e-2 * expected.abs().max()
    assert (images - decoded).abs().max() <= 5e-2 * decoded.abs().max()
