"""The networks of both families, at the sizes they were published at and at tiny ones, with untrained weights.

Each is made on torch's default device in its default precision; the meta device makes any of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.motion import MotionAdapter, hybrid_preset
from muybridge.vae import AutoencoderKLMagvit


@dataclass(frozen=True)
class Settings:
    """What the networks of one family are made with.

    Attributes:
        text: of the text encoder's config.
        text_tokens: tokens of a prompt.
        backbone: of the denoising network.
        vae: of the VAE.
        exact_tile_size: edge of the VAE's exact tiles; None is its own choice.
    """

    text: Mapping[str, Any]
    text_tokens: int
    backbone: Mapping[str, Any]
    vae: Mapping[str, Any]
    exact_tile_size: int | None = None


EASYANIMATE_V3 = Settings(
    text={  # T5 v1.1 XXL
        "vocab_size": 32_128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10_240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    },
    text_tokens=120,
    backbone={},
    vae={"slice_compression_vae": True},
)
EASYANIMATE_TINY = Settings(
    text={"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    text_tokens=12,
    backbone={
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 6,
        "sample_size": 8,
        "caption_channels": 32,
        "clip_channels": 16,
    },
    vae={
        "down_block_types": ("SpatialTemporalDownBlock3D",) * 3,
        "up_block_types": ("SpatialTemporalUpBlock3D",) * 3,
        "block_out_channels": (8, 8, 16),
        "norm_num_groups": 4,
        "slice_compression_vae": True,
        "tile_sample_min_size": 32,
    },
    exact_tile_size=16,
)
_SD_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
ANIMATEDIFF_V2 = Settings(
    text={  # CLIP ViT-L/14
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    text_tokens=77,
    backbone={},
    vae=_SD_VAE,
)
ANIMATEDIFF_TINY = Settings(
    text={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 32,
    },
    text_tokens=77,
    backbone={
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
    },
    vae={**_SD_VAE, "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4},
)


def t5(settings: Settings) -> T5EncoderModel:
    """The text encoder of EasyAnimate."""
    return T5EncoderModel(T5Config(**settings.text)).eval()


def clip(settings: Settings) -> CLIPTextModel:
    """The text encoder of Stable Diffusion 1.5."""
    return CLIPTextModel(CLIPTextConfig(**settings.text)).eval()


def easyanimate_transformer(settings: Settings) -> Transformer3DModel:
    """The transformer with its motion modules: even blocks look along the frames, odd ones over the whole video too."""
    model = Transformer3DModel(**settings.backbone)
    heads = model.transformer_config.num_attention_heads
    specs: dict[str, dict[str, Any]] = {}
    for index, site in enumerate(model.motion_sites().values()):
        preset = hybrid_preset("easyanimate_v3_odd" if index % 2 else "easyanimate_v3_even")
        config = preset.with_changes(num_heads=heads).to_dict()
        specs[site.name] = {"kind": "hybrid", "width": site.width, "config": config}
    model.set_motion_adapter(MotionAdapter(specs, numerics="easyanimate"))
    return model.eval()


def animatediff_unet(settings: Settings) -> UNet3DConditionModel:
    """The U-Net with version 2's motion modules, which the middle has too."""
    model = UNet3DConditionModel(**settings.backbone)
    model.set_motion_adapter(MotionAdapter.for_sites(model.motion_sites().values(), numerics="official-v2"))
    return model.eval()


def video_vae(settings: Settings) -> AutoencoderKLMagvit:
    """EasyAnimate's slice VAE."""
    return AutoencoderKLMagvit(**settings.vae).eval()


def image_vae(settings: Settings) -> AutoencoderKL:
    """Stable Diffusion's VAE."""
    return AutoencoderKL(**settings.vae).eval()


def on_meta(build: Any, settings: Settings) -> Any:
    """A network without weights, to ask it for its sizes."""
    with torch.device("meta"):
        return build(settings)
