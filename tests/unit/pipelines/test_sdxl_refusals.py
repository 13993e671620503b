"""What cannot be meant on Stable Diffusion XL, and what is not made for it: refused before any network runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.conditioning.kinds.control import Control
from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline

PROMPT = "a red circle moving left"
STATES, POOLED = torch.zeros(1, 24, 32), torch.zeros(1, 12)
PICTURE = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def sdxl(sdxl_folder: Path) -> Any:
    return load_pipeline(sdxl_folder / "base", motion_adapter=sdxl_folder / "motion")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"original_size": (16, 0)}, r"original_size must be \(height, width\) in pixels, each at least 1; given"),
        ({"original_size": 16}, r"original_size must be \(height, width\)"),
        ({"target_size": (16.0, 16)}, r"target_size must be \(height, width\)"),
        ({"crops_coords_top_left": (-1, 0)}, r"crops_coords_top_left must be \(top, left\) in pixels, each at least 0"),
        ({"negative_target_size": (8, 8)}, "negative_original_size, negative_target_size go together.*given only"),
        ({"negative_crops_coords_top_left": (8, 8)}, "negative_crops_coords_top_left with both; given only"),
        (
            {"negative_original_size": (8, 8), "negative_target_size": (8, 8), "guidance_scale": 1.0},
            "no effect at guidance_scale 1",
        ),
        ({"pooled_prompt_embeds": POOLED}, "pooled_prompt_embeds goes with prompt_embeds"),
        (
            {
                "prompt": None,
                "prompt_embeds": STATES,
                "pooled_prompt_embeds": POOLED,
                "negative_pooled_prompt_embeds": POOLED,
                "guidance_scale": 1.0,
            },
            "negative_pooled_prompt_embeds has no effect at guidance_scale 1",
        ),
        ({"keyframes": {0: PICTURE}}, "keyframes: SparseCtrl is supported with Stable Diffusion 1.5 only"),
        ({"sketches": {0: PICTURE}}, "sketches: SparseCtrl is supported with Stable Diffusion 1.5 only"),
        ({"image_prompt": PICTURE}, "image_prompt needs an image prompt adapter"),
    ],
)
def test_values_that_cannot_be_meant(sdxl: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sdxl(**{"prompt": PROMPT, **arguments})


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({}, r"pooled_prompt_embeds must be \[1, 12\] for this model; given none"),
        ({"pooled_prompt_embeds": POOLED[:, :5]}, r"pooled_prompt_embeds must be \[1, 12\].*given \[1, 5\]"),
        ({"pooled_prompt_embeds": POOLED}, r"negative_pooled_prompt_embeds must be \[1, 12\].*given none"),
    ],
)
def test_states_without_their_vectors(sdxl: Any, states: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        sdxl(prompt_embeds=STATES, negative_prompt_embeds=STATES, **states)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"original_size": (512, 512)}, "original_size: only Stable Diffusion XL is told sizes"),
        ({"crops_coords_top_left": (1, 0), "target_size": (8, 8)}, "crops_coords_top_left, target_size: only Stable"),
        ({"pooled_prompt_embeds": POOLED}, "only Stable Diffusion XL takes pooled text states"),
        ({"negative_pooled_prompt_embeds": POOLED}, "only Stable Diffusion XL takes pooled text states"),
    ],
)
def test_other_models_are_not_told_what_only_this_one_is(
    pipeline: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(PROMPT, **arguments)


def test_controls_of_the_other_model(sdxl: Any, pipeline: Any) -> None:
    sparse = SparseControlModel.from_unet(pipeline.unet, "rgb")
    with pytest.raises(ConfigError, match=r"a SparseCtrl \(rgb\).*supported with Stable Diffusion 1.5 only"):
        sdxl.set_sparse_control(sparse)
    with pytest.raises(ConfigError, match=r"keyframe_control: .*supported with Stable Diffusion 1.5 only"):
        AnimateDiffPipeline(**{**sdxl.components, "keyframe_control": sparse})
    net = ControlNetModel(block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"))
    with pytest.raises(ConfigError, match="controls: ControlNets are supported with Stable Diffusion"):
        sdxl(PROMPT, controls=[Control(model=net, frames=np.zeros((16, 16, 16, 3), np.uint8))])


def test_an_image_prompt_adapter_of_the_other_model(sdxl: Any, tmp_path: Path) -> None:
    shapes = {f"ip_adapter.{2 * index + 1}.to_{name}_ip.weight": (8, 768) for index in range(16) for name in "kv"}
    path = tmp_path / "ip-adapter_sd15.safetensors"
    save_file({"image_proj.norm.weight": torch.ones(4), **{k: torch.zeros(s) for k, s in shapes.items()}}, path)
    with pytest.raises(CheckpointError, match=r"for another U-Net.*\(Stable Diffusion 1.5\).*32 wide"):
        sdxl.load_image_prompt_adapter(path)


def test_a_motion_module_of_the_other_model(sdxl_folder: Path, saved_pipeline: Path) -> None:
    with pytest.raises(ConfigError, match="This motion adapter is for another backbone"):
        load_pipeline(sdxl_folder / "base", motion_adapter=saved_pipeline / "motion_adapter")
    said = r"motion \(animatediff-sdxl\) is for Stable Diffusion XL, with levels of \[32, 32, 64\].*of \[32, 64\]"
    with pytest.raises(ConfigError, match=said):
        load_pipeline(saved_pipeline, motion_adapter=sdxl_folder / "motion")


def test_still_pictures_are_not_a_video_model(sdxl_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a StableDiffusionXLPipeline; supported:.*together with a motion"):
        load_pipeline(sdxl_folder / "base")


def make_second_encoder(width: int = 16, projected: int = 12, positions: int = 24) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
        projection_dim=projected,
    )
    return CLIPTextModelWithProjection(config).eval()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_encoder_2": None}, "give text_encoder_2 and tokenizer_2 too"),
        ({"tokenizer_2": None}, "give text_encoder_2 and tokenizer_2 too"),
        ({"text_encoder_2": make_second_encoder(width=32)}, "16 and 32 wide, together 48; this U-Net takes 32"),
        ({"text_encoder_2": make_second_encoder(projected=16)}, "a vector 16 wide; this U-Net takes one of 12"),
    ],
)
def test_parts_that_do_not_go_together(sdxl: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnimateDiffPipeline(**{**sdxl.components, **changes})


def test_a_second_encoder_for_the_other_model(make_pipeline: Any, sdxl: Any) -> None:
    with pytest.raises(ConfigError, match="text_encoder_2 and tokenizer_2 are parts of Stable Diffusion XL"):
        make_pipeline(text_encoder_2=sdxl.text_encoder_2, tokenizer_2=sdxl.tokenizer_2)


def test_encoders_of_other_lengths(sdxl: Any) -> None:
    short = AnimateDiffPipeline(**{**sdxl.components, "text_encoder_2": make_second_encoder(positions=20)})
    with pytest.raises(ConfigError, match="read as many tokens as each other; these read 20 and 24"):
        short(PROMPT, num_frames=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder, _: shutil.rmtree(folder / "text_encoder_2"), "text_encoder_2 is missing; a pipeline has"),
        (lambda folder, _: shutil.rmtree(folder / "tokenizer_2"), "tokenizer_2 is missing; a pipeline has"),
        (
            lambda folder, _: (folder / "text_encoder_2" / "model.safetensors").write_bytes(b"no weights"),
            "CLIPTextModelWithProjection cannot be loaded from",
        ),
        (
            lambda folder, index: (folder / "model_index.json").write_text(
                json.dumps({**index, "tokenizer_2": ["transformers", "CLIPTextModel"]})
            ),
            "must name a PreTrainedTokenizerBase of transformers for tokenizer_2",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_damaged_folders(sdxl_folder: Path, tmp_path: Path, damage: Any, message: str) -> None:
    folder = Path(shutil.copytree(sdxl_folder / "base", tmp_path / "base"))
    damage(folder, json.loads((folder / "model_index.json").read_text()))
    with pytest.raises(CheckpointError, match=message):
        load_pipeline(folder, motion_adapter=sdxl_folder / "motion")
