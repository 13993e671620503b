"""A whole EasyAnimate of tiny random networks, of the classes that real models have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.demo.models import make_tokenizer
from muybridge.motion import HybridConfig, MotionAdapter
from muybridge.pipelines import EasyAnimatePipeline
from muybridge.sampling import make_plain_scheduler
from muybridge.sampling.schedulers import EASYANIMATE_BETAS
from muybridge.vae import AutoencoderKLMagvit


def make_pipeline(in_channels: int = 12) -> EasyAnimatePipeline:
    torch.manual_seed(0)
    vae = AutoencoderKLMagvit(
        down_block_types=["SpatialTemporalDownBlock3D"] * 3,
        up_block_types=["SpatialTemporalUpBlock3D"] * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        slice_compression_vae=True,
    )
    transformer = Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=in_channels,
        out_channels=4,
        num_layers=6,
        sample_size=8,
        caption_channels=16,
        clip_channels=None,
    )
    config = HybridConfig(num_heads=2)
    adapter = MotionAdapter.for_sites(transformer.motion_sites().values(), "hybrid", config, numerics="easyanimate")
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
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


@pytest.fixture(scope="session")
def make_easyanimate() -> Callable[..., EasyAnimatePipeline]:
    """A maker of pipelines that are all the same, for 8 frames of 32 x 32."""
    return make_pipeline
