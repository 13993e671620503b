"""A whole AnimateDiff of tiny random networks, of the classes that real models have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.demo.models import make_tokenizer
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.sampling import make_scheduler

TEXT_WIDTH = 16
PipelineMaker = Callable[..., AnimateDiffPipeline]


def make_text_encoder(vocabulary: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModel(config).eval()


def make_vae() -> AutoencoderKL:
    settings: dict[str, Any] = {
        "block_out_channels": (16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "latent_channels": 4,
    }
    return AutoencoderKL(**settings).eval()


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=32,
    ).eval()


def make_adapter(unet: UNet3DConditionModel) -> MotionAdapter:
    """Modules that move: fresh ones would be the identity."""
    adapter = MotionAdapter.for_sites(unet.motion_sites().values(), config=TemporalConfig(num_heads=4))
    for _, module in adapter.motion_modules():
        torch.nn.init.normal_(module.get_parameter("proj_out.weight"), std=0.1)
        torch.nn.init.normal_(module.get_parameter("proj_out.bias"), std=0.1)
    return adapter.eval()


@pytest.fixture(scope="session")
def make_pipeline() -> PipelineMaker:
    """A maker of pipelines that are all the same; what a test gives by keyword takes the place of a part."""

    def make(**parts: Any) -> AnimateDiffPipeline:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tokenizer = make_tokenizer()
            unet = UNet3DConditionModel.from_unet2d(make_unet())
            made: dict[str, Any] = {
                "vae": make_vae(),
                "text_encoder": make_text_encoder(len(tokenizer)),
                "tokenizer": tokenizer,
                "unet": unet,
                "motion_adapter": make_adapter(unet),
                "scheduler": make_scheduler("ddim"),
                "default_steps": 3,
                "default_guidance": 5.0,
            }
        pipeline = AnimateDiffPipeline(**{**made, **parts})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return make


@pytest.fixture(scope="module")
def pipeline(make_pipeline: PipelineMaker) -> AnimateDiffPipeline:
    """One pipeline for the tests of a file that leave it as it was."""
    return make_pipeline()


@pytest.fixture(scope="session")
def saved_pipeline(make_pipeline: PipelineMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that pipeline; copy it before damaging it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    make_pipeline().save_pretrained(folder)
    return folder
