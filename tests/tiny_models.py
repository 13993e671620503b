"""Real networks at a size for tests, with the same weights every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.demo.models import make_tokenizer
from muybridge.motion import HybridConfig, MotionAdapter
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.sampling import make_plain_scheduler
from muybridge.sampling.schedulers import EASYANIMATE_BETAS
from muybridge.vae import AutoencoderKLMagvit


def make_easyanimate(
    widths: Sequence[int] = (8, 8, 16), drawn: Sequence[str] = ("adapter",), **settings: Any
) -> EasyAnimatePipeline:
    """An EasyAnimate for 8 frames of 32 x 32 in two steps.

    Args:
        widths: of the VAE.
        drawn: what has random weights in place of those it starts with, of "adapter" and "transformer".
        settings: of the transformer, in place of those here.
    """
    torch.manual_seed(0)
    vae = AutoencoderKLMagvit(
        down_block_types=["SpatialTemporalDownBlock3D"] * 3,
        up_block_types=["SpatialTemporalUpBlock3D"] * 3,
        block_out_channels=tuple(widths),
        norm_num_groups=4,
        slice_compression_vae=True,
    )
    usual: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 12,
        "out_channels": 4,
        "num_layers": 4,
        "sample_size": 8,
        "caption_channels": 16,
        "clip_channels": None,
    }
    transformer = Transformer3DModel(**{**usual, **settings})
    config = HybridConfig(num_heads=2)
    adapter = MotionAdapter.for_sites(transformer.motion_sites().values(), "hybrid", config, numerics="easyanimate")
    for name in drawn:
        for parameter in {"adapter": adapter, "transformer": transformer}[name].parameters():
            nn.init.normal_(parameter, std=0.1)
    transformer.set_motion_adapter(adapter)
    tokenizer = make_tokenizer()
    text = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pipeline = EasyAnimatePipeline(
        vae=vae.eval(),
        text_encoder=T5EncoderModel(text).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        scheduler=make_plain_scheduler("ddim", EASYANIMATE_BETAS),  # type: ignore[arg-type]
        default_size=(32, 32),
        default_num_frames=8,
        default_steps=2,
        default_guidance=2.0,
        max_tokens=16,
        profile="clean",
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
