"""What the video VAE can be built as, and how many frames and latents belong together."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from muybridge.errors import ConfigError, ShapeError
from muybridge.vae.magvit import AutoencoderKLMagvit, TemporalMode

PUBLISHED_V3: dict[str, Any] = {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["SpatialDownBlock3D"] + ["SpatialTemporalDownBlock3D"] * 3,
    "up_block_types": ["SpatialUpBlock3D"] + ["SpatialTemporalUpBlock3D"] * 3,
    "mid_block_attention_type": "3d",
    "mid_block_num_attention_heads": 1,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "slice_compression_vae": True,
    "use_tiling": True,
    "mini_batch_encoder": 8,
    "mini_batch_decoder": 2,
}


def build(**settings: Any) -> AutoencoderKLMagvit:
    with torch.device("meta"):
        return AutoencoderKLMagvit(**settings)


@pytest.fixture(scope="module")
def v3() -> AutoencoderKLMagvit:
    return build(**PUBLISHED_V3)


@pytest.fixture(scope="module")
def v2() -> AutoencoderKLMagvit:
    return build(**{**PUBLISHED_V3, "slice_compression_vae": False, "mini_batch_encoder": 9, "mini_batch_decoder": 3})


def test_factors_come_from_the_blocks(v3: AutoencoderKLMagvit, v2: AutoencoderKLMagvit) -> None:
    assert (v3.temporal_mode, v2.temporal_mode) == (TemporalMode.SLICE, TemporalMode.MAGVIT)
    assert [(vae.spatial_factor, vae.temporal_factor, vae.frame_multiple) for vae in (v3, v2)] == [(8, 4, 8), (8, 4, 9)]
    tiny = build(
        block_out_channels=(8, 8),
        down_block_types=("SpatialTemporalDownBlock3D", "DownBlock3D"),
        up_block_types=("SpatialTemporalUpBlock3D", "UpBlock3D"),
        norm_num_groups=4,
    )
    assert (tiny.spatial_factor, tiny.temporal_factor, tiny.frame_multiple) == (2, 2, 9)


def test_both_ways_to_give_the_widths_are_one(v3: AutoencoderKLMagvit) -> None:
    settings = {k: v for k, v in PUBLISHED_V3.items() if k != "block_out_channels"}
    original = build(ch=128, ch_mult=[1, 2, 4, 4], **settings)
    expected = {name: tensor.shape for name, tensor in v3.state_dict().items()}
    assert {name: tensor.shape for name, tensor in original.state_dict().items()} == expected
    assert tuple(original.config["block_out_channels"]) == (128, 256, 512, 512)
    assert build(ch=64, ch_mult=[1, 2, 4, 4], **settings).config["block_out_channels"] == (64, 128, 256, 256)
    with pytest.raises(ConfigError, match="differ; give one"):
        build(ch=64, **PUBLISHED_V3)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (8, 2), (16, 4), (144, 36)], ids=str)
def test_frames_and_latents_of_v3(v3: AutoencoderKLMagvit, frames: int, latents: int) -> None:
    assert v3.num_latent_frames(frames) == latents
    assert v3.num_frames(latents) == frames


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (9, 3), (144, 48)], ids=str)
def test_frames_and_latents_of_v2(v2: AutoencoderKLMagvit, frames: int, latents: int) -> None:
    assert v2.num_latent_frames(frames) == latents
    assert v2.num_frames(latents) == frames


def test_frames_and_latents_without_chunks() -> None:
    vae = build(slice_mag_vae=False)
    assert [vae.num_latent_frames(n) for n in (1, 5, 17)] == [1, 2, 5]
    assert [vae.num_frames(n) for n in (1, 2, 5)] == [1, 5, 17]
    with pytest.raises(ShapeError, match=r"multiple of 4 plus 1.*given 18.*nearest is 17"):
        vae.num_latent_frames(18)


@pytest.mark.parametrize(("given", "nearest"), [(0, 1), (4, 1), (5, 8), (7, 8), (9, 8), (13, 16), (-3, 1)])
def test_other_numbers_of_frames_name_the_nearest(v3: AutoencoderKLMagvit, given: int, nearest: int) -> None:
    with pytest.raises(ShapeError, match=rf"given {given}\. The nearest is {nearest}\."):
        v3.num_latent_frames(given)


@pytest.mark.parametrize(("given", "nearest"), [(0, 1), (3, 2), (5, 4)])
def test_other_numbers_of_latents_name_the_nearest(v3: AutoencoderKLMagvit, given: int, nearest: int) -> None:
    with pytest.raises(ShapeError, match=rf"given {given}\. The nearest is {nearest}\."):
        v3.num_frames(given)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"act_fn": "gelu"}, "act_fn='gelu' \\(only 'silu'\\)"),
    ({"cache_compression_vae": True}, "cache_compression_vae"),
    ({"spatial_group_norm": True}, "spatial_group_norm"),
    ({"colour": "red"}, "no setting colour"),
    ({"norm_num_groups": 24}, "must divide"),
    ({"block_out_channels": (32,)}, "At least two levels"),
    ({"block_out_channels": (32, 32)}, "must name 2 levels"),
    ({"down_block_types": ("DownEncoderBlock2D",) * 4}, "DownEncoderBlock2D.*supported: DownBlock3D"),
    ({"up_block_types": ("SpatialUpBlock3D",) * 4}, "divides time by 4 and the decoder multiplies it by 1"),
    ({"mini_batch_encoder": 12}, "multiple of 8"),
    ({"mini_batch_decoder": 0}, "at least 1"),
    ({"slice_mag_vae": False}, "no effect"),
    ({"slice_compression_vae": False, "mini_batch_encoder": 8}, "causal chunk"),
    ({"slice_compression_vae": False, "mini_batch_encoder": 9, "mini_batch_decoder": 2}, "causal chunk"),
    ({"tile_sample_min_size": 380}, "multiple of 8"),
    ({"tile_overlap_factor": 0.3}, "whole number"),
    ({"tile_overlap_factor": 1.0}, "below 1"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_built_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**{**PUBLISHED_V3, **settings})
