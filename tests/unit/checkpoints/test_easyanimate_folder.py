"""Folders of EasyAnimate as they are published: wrong index, shards named after their precision, the whole of CLIP."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import published_keywords
from muybridge.demo.models import make_tokenizer
from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines.easyanimate.folder import is_published_folder, load_parts
from muybridge.pipelines.planning import plan_video
from muybridge.runtime.plan import PlanSettings
from muybridge.types import VideoShape
from muybridge.vae import AutoencoderKLMagvit

WEIGHTS = "diffusion_pytorch_model.safetensors"
MOTION = {
    "num_attention_heads": 2,
    "num_transformer_block": 1,
    "temporal_position_encoding": True,
    "temporal_attention_dim_div": 1,
    "block_size": 1,
    "remove_time_embedding_in_photo": False,
}
TRANSFORMER: dict[str, Any] = {
    "_class_name": "Transformer2DModel",
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 12,
    "out_channels": 8,
    "num_layers": 4,
    "sample_size": 8,
    "patch_size": 2,
    "caption_channels": 16,
    "norm_eps": 1e-6,
    "enable_uvit": True,
    "basic_block_type": "global_motionmodule",
    "motion_module_kwargs_even": {**MOTION, "attention_block_types": ["Temporal_Self", "Temporal_Self"]},
    "motion_module_kwargs_odd": {**MOTION, "attention_block_types": ["Temporal_Self", "Global_Self"]},
}


def original_name(name: str) -> str:
    return f"module.{name.replace('.attn_temporal.', '.attn_temporal.temporal_transformer.')}"


def write_transformer(folder: Path) -> None:
    state = Transformer3DModel(**published_keywords(TRANSFORMER)).state_dict()
    weights = {original_name(name): value.contiguous() for name, value in state.items()}
    weights["module.transformer_blocks.0.attn_temporal.temporal_transformer.pos_encoder.pe"] = torch.zeros(1, 8, 32)
    folder.mkdir()
    save_file(weights, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(TRANSFORMER))


def write_vae(folder: Path) -> None:
    vae = AutoencoderKLMagvit(
        down_block_types=["SpatialTemporalDownBlock3D"] * 3,
        up_block_types=["SpatialTemporalUpBlock3D"] * 3,
        block_out_channels=(4, 4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        slice_compression_vae=True,
    )
    vae.save_pretrained(folder)
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "loss.logvar": torch.zeros(1)}, folder / WEIGHTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "EasyAnimateV3-XL-2-InP-768x768"
    path.mkdir()
    write_transformer(path / "transformer")
    write_vae(path / "vae")
    T5EncoderModel(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)).save_pretrained(
        path / "text_encoder", variant="fp16", max_shard_size="3KB"
    )
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPConfig(
        text_config={**small, "vocab_size": 16, "projection_dim": 768},
        vision_config={**small, "image_size": 16, "patch_size": 8, "projection_dim": 768},
        projection_dim=768,
    )
    CLIPModel(clip).save_pretrained(path / "image_encoder")
    CLIPImageProcessorPil().save_pretrained(path / "image_encoder")
    # What the published folders say is not what they hold.
    index = {
        "_class_name": "PixArtAlphaPipeline",
        "transformer": ["diffusers", "Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    }
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def load(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return load_parts(folder, dtype, {"tokenizer": make_tokenizer()})


def test_a_published_folder_loads_whatever_its_index_says(folder: Path) -> None:
    assert is_published_folder(folder)
    assert list((folder / "text_encoder").glob("model.fp16-*.safetensors"))

    loaded = load(folder, torch.bfloat16)

    assert isinstance(loaded["transformer"], Transformer3DModel)
    assert isinstance(loaded["vae"], AutoencoderKLMagvit)
    assert isinstance(loaded["scheduler"], EulerDiscreteScheduler)
    assert isinstance(loaded["image_encoder"], CLIPVisionModelWithProjection)
    assert loaded["text_encoder"].dtype == loaded["transformer"].dtype == torch.bfloat16
    assert tuple(loaded["default_size"]) == (576, 1008)


def test_weights_are_those_of_the_files(folder: Path) -> None:
    loaded = load(folder)

    weights = load_file(folder / "transformer" / WEIGHTS)
    for name, value in loaded["transformer"].state_dict().items():
        assert torch.equal(value, weights[original_name(name)]), name
    shards = [load_file(path) for path in (folder / "text_encoder").glob("model.fp16-*.safetensors")]
    text = loaded["text_encoder"].state_dict()
    assert len(shards) > 1
    assert all(torch.equal(text[name], value) for shard in shards for name, value in shard.items())
    clip = load_file(folder / "image_encoder" / "model.safetensors")
    assert any(name.startswith("text_model") for name in clip)
    vision = loaded["image_encoder"].state_dict()
    assert torch.equal(vision["visual_projection.weight"], clip["visual_projection.weight"])


def test_a_lost_shard_is_refused(folder: Path) -> None:
    sorted((folder / "text_encoder").glob("model.fp16-*.safetensors"))[-1].unlink()

    with pytest.raises(CheckpointError, match="text_encoder"):
        load(folder)


def test_an_image_encoder_that_is_something_else_is_refused(folder: Path) -> None:
    path = folder / "image_encoder" / "model.safetensors"
    weights = load_file(path)
    del weights["visual_projection.weight"]
    save_file({**weights, "other.weight": torch.zeros(1)}, path, {"format": "pt"})

    with pytest.raises(CheckpointError, match=r"other\.weight.*|visual_projection"):
        load(folder)


def test_a_part_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unet is no part"):
        load_parts(folder, torch.float32, {"unet": None})


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_plan_counts_the_picture_and_its_tokens(folder: Path) -> None:
    def planned() -> dict[str, int]:
        return plan_video(folder, VideoShape(8, 32, 32), choices=(PlanSettings("float32"),)).runs[0].peaks

    with_picture = planned()
    shutil.rmtree(folder / "image_encoder")
    without = planned()

    assert with_picture["picture"] > 0
    assert "picture" not in without
    # At the least the keys and values of 8 more tokens in one block, for each branch.
    assert with_picture["denoise"] - without["denoise"] >= 2 * 2 * 8 * 32 * 4
