"""Large pictures in tiles: exactly, and as the original does it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import ConfigError
from muybridge.vae.magvit import AutoencoderKLMagvit, Tiling, model

LEVELS: dict[str, Any] = {
    "block_out_channels": (8, 8, 16),
    "down_block_types": ("SpatialDownBlock3D",) + ("SpatialTemporalDownBlock3D",) * 2,
    "up_block_types": ("SpatialUpBlock3D",) + ("SpatialTemporalUpBlock3D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "tile_sample_min_size": 32,
}
V3: dict[str, Any] = {"slice_compression_vae": True, "mini_batch_encoder": 4}
V2: dict[str, Any] = {"mini_batch_encoder": 5}


def make(**settings: Any) -> AutoencoderKLMagvit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLMagvit(**{**LEVELS, **settings}).eval()
        for module in vae.modules():
            if isinstance(module, nn.GroupNorm):  # fresh norms scale by one and shift by nothing
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, 0.0, 0.2)
    return vae


def video(height: int, width: int, frames: int = 4, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def round_trip(vae: AutoencoderKLMagvit, pixels: Tensor) -> tuple[Tensor, Tensor]:
    posterior = vae.encode(pixels, return_dict=False)[0]
    return posterior.parameters, vae.decode(posterior.mode(), return_dict=False)[0]


def difference(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("mode", [V3, V2], ids=["v3", "v2"])
@pytest.mark.parametrize("tile_size", [1000, 20, 7])
@pytest.mark.parametrize("batch", [1, 2])
def test_exact_tiles_give_the_numbers_of_the_whole_picture(mode: dict[str, Any], tile_size: int, batch: int) -> None:
    vae = make(**mode)
    pixels = video(28, 36, vae.frame_multiple + 1, batch)
    kept = pixels.clone()
    expected = round_trip(vae, pixels)
    vae.enable_tiling(Tiling.EXACT, tile_size)
    found = round_trip(vae, pixels)
    assert difference(found[0], expected[0]) <= 1e-5
    assert difference(found[1], expected[1]) <= 1e-5
    assert torch.equal(pixels, kept)


@torch.no_grad()
def test_exact_tiles_in_half_precision() -> None:
    vae = make(**V3)
    pixels = video(28, 36)
    expected = round_trip(vae, pixels)
    vae.bfloat16()
    plain = round_trip(vae, pixels.bfloat16())
    vae.enable_tiling(Tiling.EXACT, 20)
    tiled = round_trip(vae, pixels.bfloat16())
    for found, other, exact in zip(tiled, plain, expected, strict=True):
        assert found.dtype == torch.bfloat16
        assert difference(found.float(), exact) <= 2 * difference(other.float(), exact) <= 0.1


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_statistics_of_tiles_are_those_of_the_whole(offset: float) -> None:
    x = torch.randn(2, 8, 3, 11, 13, generator=torch.Generator().manual_seed(0)) + offset
    norm: Any = make(**V3).encoder.get_submodule("down_blocks.0.convs.0.norm1")
    mean, reciprocal_std = norm.statistics(x, 5)
    groups = x.double().reshape(2, 4, -1)
    assert torch.allclose(mean.double(), groups.mean(-1), rtol=1e-6)
    expected = (groups.var(-1, correction=0) + 1e-6).rsqrt()
    assert torch.allclose(reciprocal_std.double(), expected, rtol=1e-4)


def test_exact_tiles_refuse_to_train() -> None:
    vae = make(**V3)
    vae.enable_tiling()
    assert vae.tiling is Tiling.EXACT
    with pytest.raises(ConfigError, match=r"no_grad\(\), or disable_tiling"):
        vae.encode(video(8, 8))
    with pytest.raises(ConfigError, match=r"no_grad\(\), or disable_tiling"):
        vae.decode(torch.zeros(1, 4, 2, 2, 2))
    vae.disable_tiling()
    assert vae.tiling is Tiling.OFF
    assert vae.encode(video(8, 8), return_dict=False)[0].parameters.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "is_large"), [((8, 12), False), ((12, 12), True)])
def test_large_pictures_in_half_precision_are_tiled_by_themselves(
    dtype: torch.dtype, size: tuple[int, int], is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_LARGE", 8 * 12)
    vae: Any = make(**V3)
    vae.to(dtype)
    found = round_trip(vae, video(*size).to(dtype))
    vae.enable_tiling(Tiling.EXACT if is_large and dtype is torch.bfloat16 else Tiling.OFF)
    expected = round_trip(vae, video(*size).to(dtype))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    vae.reset_tiling()
    assert vae.tiling is Tiling.AUTO
    with torch.enable_grad():
        assert vae.encode(video(*size).to(dtype), return_dict=False)[0].parameters.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("tiling", [Tiling.REFERENCE, Tiling.REFERENCE_LAUNCH])
def test_reference_tiles_begin_above_the_tile_size(tiling: Tiling) -> None:
    vae = make(**V3)
    small, large = video(32, 32), video(32, 36)
    expected = [round_trip(vae, pixels) for pixels in (small, large)]
    vae.enable_tiling(tiling)
    found = [round_trip(vae, pixels) for pixels in (small, large)]
    assert all(torch.equal(*pair) for pair in zip(found[0], expected[0], strict=True))
    assert all(difference(*pair) > 1e-3 for pair in zip(found[1], expected[1], strict=True))


@torch.no_grad()
def test_the_corner_is_what_the_two_references_differ_in() -> None:
    vae = make(**V3)
    latents = torch.randn(1, 4, 2, 10, 12, generator=torch.Generator().manual_seed(3))
    vae.enable_tiling("reference")
    later = vae.decode(latents, return_dict=False)[0]
    vae.enable_tiling("reference-launch")
    launch = vae.decode(latents, return_dict=False)[0]
    assert torch.equal(later[..., :8, :], launch[..., :8, :])
    assert torch.equal(later[..., :16], launch[..., :16])
    alone = vae.decode(latents[..., -8:, -8:], return_dict=False)[0]
    assert torch.allclose(later[..., -1, -1], alone[..., -1, -1])
    assert difference(later, launch) > 1e-3


@torch.no_grad()
def test_tiles_fade_into_each_other() -> None:
    vae = make(**V3)
    latents = torch.randn(1, 4, 2, 8, 12, generator=torch.Generator().manual_seed(3))
    vae.enable_tiling("reference-launch")
    found = vae.decode(latents, return_dict=False)[0]
    left, right = (vae.decode(latents[..., start : start + 8], return_dict=False)[0] for start in (0, 6))
    assert torch.equal(found[..., :24, :24], left[..., :24, :24])
    ramp = torch.arange(8) / 8
    faded = left[..., 24:] * (1 - ramp) + right[..., :8] * ramp
    assert torch.allclose(found[..., :24, 24:32], faded[..., :24, :], atol=1e-6)


def test_training_goes_through_reference_tiles() -> None:
    vae = make(**V3, use_tiling=True)
    assert vae.tiling is Tiling.REFERENCE
    round_trip(vae, video(36, 32))[1].square().mean().backward()
    assert [name for name, parameter in vae.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fast",), "Unknown tiling 'fast'. Known: auto, off, exact, reference, reference-launch"),
        (("reference", 64), "exact tiling only"),
        (("exact", 0), "must be positive"),
    ],
)
def test_other_tilings_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    vae = make(**V3)
    with pytest.raises(ConfigError, match=message):
        vae.enable_tiling(*arguments)
    assert vae.tiling is Tiling.AUTO


@torch.no_grad()
def test_exact_tiles_take_the_memory_of_the_widest_layer() -> None:
    frames, height, width = 8, 512, 768
    with torch.device("meta"):
        vae = AutoencoderKLMagvit(**{**LEVELS, **V3, "block_out_channels": (16, 32, 32), "mini_batch_encoder": frames})
        latents = torch.empty(1, 4, frames // 2, height // 4, width // 4)
    peaks = {}
    for tiling in (Tiling.OFF, Tiling.EXACT):
        vae.enable_tiling(tiling)
        with TensorMemory() as memory:
            vae.decode(latents)
        peaks[tiling] = memory.peak_bytes
    # The last level: 32 channels in and 16 out, of all pixels.
    widest = (32 + 16) * frames * height * width * latents.element_size()
    assert widest < peaks[Tiling.EXACT] <= 1.25 * widest
    assert peaks[Tiling.EXACT] < 0.75 * peaks[Tiling.OFF]
