"""ControlNets in files: the original's names and diffusers', and what is like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, SparseControlNetModel, T2IAdapter
from safetensors.torch import save_file
from torch import Tensor

from muybridge.checkpoints.control_files import read_control
from muybridge.checkpoints.ldm_names import ldm_names
from muybridge.conditioning.kinds.control import Control
from muybridge.errors import CheckpointError, ConfigError
from muybridge.pipelines import AnimateDiffPipeline
from muybridge.pipelines.plan import Planner, batch_of
from muybridge.request import GenerateRequest, Inputs
from muybridge.video import Video

LAYERS = 2


def make_control(**settings: Any) -> ControlNetModel:
    torch.manual_seed(3)
    usual: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "layers_per_block": LAYERS,
        "cross_attention_dim": 16,
        "conditioning_embedding_out_channels": (16, 32, 96, 256),
    }
    model = ControlNetModel(**{**usual, **settings}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.fixture(scope="module")
def control() -> ControlNetModel:
    return make_control()


def original(model: ControlNetModel) -> dict[str, Tensor]:
    return {original_name(key): value for key, value in model.state_dict().items()}


def original_name(key: str) -> str:
    layer, _, last = key.rpartition(".")
    part, _, rest = layer.partition(".")
    if part == "controlnet_down_blocks":
        return f"zero_convs.{rest}.0.{last}"
    if part == "controlnet_mid_block":
        return f"middle_block_out.0.{last}"
    if part == "controlnet_cond_embedding":
        blocks = {"conv_in": 0, "conv_out": 14, **{f"blocks.{index}": 2 + 2 * index for index in range(6)}}
        return f"input_hint_block.{blocks[rest]}.{last}"
    return f"{ldm_names(layer, LAYERS)[0]}.{last}"


LAYOUTS: dict[str, Callable[[ControlNetModel], dict[str, Tensor]]] = {
    "original": original,
    "with prefix": lambda model: {f"control_model.{key}": value for key, value in original(model).items()},
    "with the image model": lambda model: {
        "model.diffusion_model.out.2.bias": torch.zeros(4),
        **{f"control_model.{key}": value for key, value in original(model).items()},
    },
    "diffusers": lambda model: dict(model.state_dict()),
}


def saved(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["control_v11p_sd15_canny.pth", "control.safetensors"])
def test_a_file_is_read_bit_by_bit(control: ControlNetModel, tmp_path: Path, layout: str, name: str) -> None:
    found = read_control(saved(LAYOUTS[layout](control), tmp_path / name))
    states = found.state_dict(), control.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    for setting in ("block_out_channels", "conditioning_embedding_out_channels", "down_block_types"):
        assert list(found.config[setting]) == list(control.config[setting])
    assert (found.config["attention_head_dim"], found.config["cross_attention_dim"]) == (8, 16)


def test_folders(control: ControlNetModel, tmp_path: Path) -> None:
    control.save_pretrained(tmp_path / "pipeline" / "controlnet")
    for place in (tmp_path / "pipeline" / "controlnet", tmp_path / "pipeline"):
        assert read_control(place, torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match=r"There is no ControlNet .*as in organisation/repository"):
        read_control(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"adapter.body.0.in_conv.weight": 1, "adapter.conv_in.weight": 1}, "is a T2I-Adapter, which is run once"),
        ({"body.0.resnets.0.block1.weight": 1}, "is a T2I-Adapter"),
        ({"lora_controlnet": 1, "input_blocks.0.0.weight": 1}, "is a Control-LoRA"),
        ({"lllite_unet_x.down.0.weight": 1}, "is a ControlNet-LLLite"),
        ({"control_model.label_emb.0.0.weight": 1}, "is a ControlNet for Stable Diffusion XL"),
        ({"controlnet_cond_embedding.conv_in.weight": 1, "add_embedding.linear_1.weight": 1}, "Stable Diffusion XL"),
        ({"task_embedding": 1, "controlnet_cond_embedding.conv_in.weight": 1}, r"several tasks \(union\)"),
        ({"lora_unet_x.lora_up.weight": 1}, "is a LoRA; its place is"),
        (
            {"controlnet_cond_embedding.conv_in.weight": 1, "down_blocks.0.motion_modules.0.norm.weight": 1},
            "is a SparseCtrl; its place is .*--keyframe-control",
        ),
        ({"a.b": 1}, r"no ControlNet that is known here \(its keys: a\.b\)"),
        ({"input_hint_block.0.weight": 1}, "no layer that halves the size"),
    ],
)
def test_what_is_no_controlnet_is_named(tmp_path: Path, state: dict[str, int], said: str) -> None:
    tensors = {key: torch.zeros(4, 4) for key in state}
    with pytest.raises(CheckpointError, match=said):
        read_control(saved(tensors, tmp_path / "x.safetensors"))


def test_folders_of_other_networks_are_named(tmp_path: Path) -> None:
    T2IAdapter(channels=[8], num_res_blocks=1, downscale_factor=8).save_pretrained(tmp_path / "t2i")
    with pytest.raises(CheckpointError, match=r"holds a T2I-Adapter; not supported"):
        read_control(tmp_path / "t2i")
    SparseControlNetModel(
        block_out_channels=(32, 32, 32, 32), cross_attention_dim=16, layers_per_block=1
    ).save_pretrained(tmp_path / "sparse")
    with pytest.raises(CheckpointError, match=r"holds a SparseCtrl; its place is --keyframe-control"):
        read_control(tmp_path / "sparse")


def test_a_half_file_names_what_is_missing(control: ControlNetModel, tmp_path: Path) -> None:
    state = {key: value for key, value in original(control).items() if not key.startswith("zero_convs.2.")}
    with pytest.raises(CheckpointError, match=r"has no weights for controlnet_down_blocks\.2\.bias"):
        read_control(saved(state, tmp_path / "x.pth"))


def test_a_control_for_another_image_model_is_refused(make_pipeline: Callable[..., AnimateDiffPipeline]) -> None:
    pipeline, frames = make_pipeline(), np.zeros((1, 16, 16, 3), np.uint8)
    for other, said in (
        (
            make_control(cross_attention_dim=24, layers_per_block=1),
            "its cross_attention_dim is 24, and the U-Net's is 16",
        ),
        (
            make_control(block_out_channels=(64, 64)),
            r"its block_out_channels is \[64, 64\], and the U-Net's is \[32, 64\]",
        ),
        (make_control(), "its layers_per_block is 2, and the U-Net's is 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            pipeline(
                "a red circle", num_frames=1, num_inference_steps=1, controls=[Control(model=other, frames=frames)]
            )


def test_a_request_may_name_a_file(make_pipeline: Callable[..., AnimateDiffPipeline], tmp_path: Path) -> None:
    model = saved(dict(make_control(layers_per_block=1).state_dict()), tmp_path / "control.safetensors")
    shown = Video(np.full((2, 16, 16, 3), 200, np.uint8)).save(tmp_path / "shown.mp4")
    request = GenerateRequest.from_flat(
        {"prompt": "a red circle", "controls": [{"model": str(model), "frames": str(shown)}]}
    )
    pipeline = make_pipeline()
    torch.nn.Module.to(pipeline.unet, torch.bfloat16)
    inputs = Inputs()
    Planner(pipeline, request, inputs).plan(batch_of(request, None, None, 1), "latent", None, batched_guidance=True)
    found: Any = inputs.once(("control", str(model)), lambda: None)
    assert (type(found), found.dtype) == (ControlNetModel, torch.bfloat16)
