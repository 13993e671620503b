"""Equality with EasyAnimate's video VAE, on the numbers it gave for small random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.vae.magvit import AutoencoderKLMagvit, Tiling

TOLERANCE = 3e-5
SLICE = "easyanimate_v3_vae_slice"
TILED = "easyanimate_v3_vae_slice_tiled"
MAGVIT = "easyanimate_v2_vae_magvit"


def load(golden: Any, case: str, **settings: Any) -> tuple[AutoencoderKLMagvit, dict[str, Tensor]]:
    tensors, meta = golden(case)
    vae = AutoencoderKLMagvit(**{**meta["config"], **settings})
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    vae.load_state_dict(weights, strict=True)
    return vae.eval(), tensors


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.detach() - expected).abs().max() / expected.abs().max())


def round_trip(vae: AutoencoderKLMagvit, video: Tensor) -> tuple[Tensor, Tensor]:
    posterior: Any = vae.encode(video)
    decoded: Any = vae.decode(posterior.latent_dist.mean)
    return posterior.latent_dist.parameters, decoded.sample


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    ("case", "name"), [(SLICE, n) for n in ("1", "8", "9", "16", "24")] + [(MAGVIT, n) for n in ("1", "9", "18")]
)
def test_videos_equal_the_original(golden: Any, case: str, name: str, grad: bool) -> None:
    vae, tensors = load(golden, case)
    with torch.set_grad_enabled(grad):
        moments, decoded = round_trip(vae, tensors[f"inputs/video.{name}"])
    assert error(moments, tensors[f"outputs/moments.{name}"]) <= TOLERANCE
    assert error(decoded, tensors[f"outputs/decoded.{name}"]) <= TOLERANCE


@torch.no_grad()
def test_an_odd_number_of_latents_equals_the_original(golden: Any) -> None:
    vae, tensors = load(golden, SLICE)
    decoded: Any = vae.decode(tensors["inputs/latents.5"])
    assert error(decoded.sample, tensors["outputs/decoded_from_latents.5"]) <= TOLERANCE


@torch.no_grad()
def test_without_chunks_equals_the_original(golden: Any) -> None:
    vae, tensors = load(golden, MAGVIT, slice_mag_vae=False)
    moments, decoded = round_trip(vae, tensors["inputs/video.18"][:, :, :17])
    assert error(moments, tensors["outputs/unchunked.moments.first17of18"]) <= TOLERANCE
    assert error(decoded, tensors["outputs/unchunked.decoded.first17of18"]) <= TOLERANCE


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", ["tiled16", "tiled1"])
@pytest.mark.parametrize(("tiling", "prefix"), [(Tiling.REFERENCE, ""), (Tiling.REFERENCE_LAUNCH, "f9eeabe.")])
def test_tiles_equal_the_original(golden: Any, name: str, tiling: Tiling, prefix: str, grad: bool) -> None:
    vae, tensors = load(golden, TILED, use_tiling=True)
    assert vae.tiling is Tiling.REFERENCE
    vae.enable_tiling(tiling)
    with torch.set_grad_enabled(grad):
        moments, decoded = round_trip(vae, tensors[f"inputs/video.{name}"])
    assert error(moments, tensors[f"outputs/moments.{name}"]) <= TOLERANCE
    assert error(decoded, tensors[f"outputs/{prefix}decoded.{name}"]) <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("case", [SLICE, MAGVIT])
def test_exact_tiles_equal_the_original(golden: Any, case: str) -> None:
    vae, tensors = load(golden, case)
    vae.enable_tiling(Tiling.EXACT, tile_size=20)
    name = "9"
    moments, decoded = round_trip(vae, tensors[f"inputs/video.{name}"])
    assert error(moments, tensors[f"outputs/moments.{name}"]) <= TOLERANCE
    assert error(decoded, tensors[f"outputs/decoded.{name}"]) <= TOLERANCE


@torch.no_grad()
def test_the_tiles_are_not_the_whole_picture(golden: Any) -> None:
    vae, tensors = load(golden, TILED)
    moments, decoded = round_trip(vae, tensors["inputs/video.tiled16"])
    assert error(moments, tensors["outputs/moments.tiled16"]) > 1e-2
    assert error(decoded, tensors["outputs/decoded.tiled16"]) > 1e-2


@pytest.mark.parametrize(("config", "multiple"), [("config_v3", 8), ("config_v2", 9)])
def test_full_size_names_and_shapes(golden: Any, config: str, multiple: int) -> None:
    _, manifest = golden("easyanimate_v3_vae_manifest")
    with torch.device("meta"):
        vae = AutoencoderKLMagvit(**manifest[config])
    assert {k: list(v.shape) for k, v in vae.state_dict().items()} == manifest["keys"]
    assert sum(p.numel() for p in vae.parameters()) == manifest["n_parameters"]
    assert (vae.spatial_factor, vae.temporal_factor, vae.frame_multiple) == (8, 4, multiple)
