"""A U-Net of SDXL's layout beside diffusers', for pictures and for videos, on the same random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn

from muybridge.backbones.unet import UNet3DConditionModel, from_unet_motion_model
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter

TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 2,
    "cross_attention_dim": 32,
    "transformer_layers_per_block": [1, 1, 3],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
IMAGE: dict[str, Any] = {
    **TINY,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2, 4),
}
VIDEO: dict[str, Any] = {
    **TINY,
    "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
    "up_block_types": ("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion", "UpBlockMotion"),
    "num_attention_heads": (1, 2, 4),
    "motion_num_attention_heads": 8,
    "use_motion_mid_block": False,
}
Inputs = dict[str, Tensor]


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(2, 4, 3, 8, 12, generator=generator),
        "encoder_hidden_states": torch.randn(2, 7, 32, generator=generator),
        "text_embeds": torch.randn(2, 16, generator=generator),
        "time_ids": torch.tensor([[64.0, 96, 0, 0, 64, 96], [512, 512, 3, 7, 64, 96]]),
    }


def added(inputs: Inputs) -> dict[str, Tensor]:
    return {name: inputs[name] for name in ("text_embeds", "time_ids")}


@torch.no_grad()
def ours(model: UNet3DConditionModel, inputs: Inputs) -> Tensor:
    own = {name: value for name, value in inputs.items() if name not in added(inputs)}
    return model.eval()(timestep=torch.tensor(500), **own, added_cond_kwargs=added(inputs)).sample


def test_pictures(inputs: Inputs) -> None:
    reference = UNet2DConditionModel(**IMAGE).eval()
    randomise(reference)
    found = ours(UNet3DConditionModel.from_unet2d(reference), inputs)
    with torch.no_grad():
        expected = torch.stack(
            [
                reference(frame, 500, inputs["encoder_hidden_states"], added_cond_kwargs=added(inputs)).sample
                for frame in inputs["sample"].unbind(2)
            ],
            dim=2,
        )
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_videos(inputs: Inputs) -> None:
    reference = UNetMotionModel(**VIDEO).eval()
    randomise(reference)
    model = from_unet_motion_model(reference)
    assert model.motion_adapter is not None
    assert "mid_block.motion_modules.0" not in model.motion_adapter.sites
    found = ours(model, inputs)
    with torch.no_grad():
        text = inputs["encoder_hidden_states"].repeat_interleave(3, dim=0)
        expected = reference(inputs["sample"], torch.tensor(500), text, added_cond_kwargs=added(inputs)).sample
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    model.remove_motion_adapter()
    assert (ours(model, inputs) - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("name", ["text_embeds", "time_ids"])
def test_both_conditions_count(inputs: Inputs, name: str) -> None:
    reference = UNet2DConditionModel(**IMAGE)
    randomise(reference)
    model = UNet3DConditionModel.from_unet2d(reference)
    assert not torch.equal(ours(model, inputs), ours(model, inputs | {name: inputs[name] + 1}))


def test_a_saved_model_is_the_same_model(inputs: Inputs, tmp_path: Path) -> None:
    reference = UNet2DConditionModel(**IMAGE)
    randomise(reference)
    model = UNet3DConditionModel.from_unet2d(reference)
    model.save_pretrained(tmp_path)
    assert torch.equal(ours(UNet3DConditionModel.from_pretrained(tmp_path), inputs), ours(model, inputs))


def test_conditions_that_are_missing_or_not_wanted(inputs: Inputs) -> None:
    with torch.device("meta"):
        model = UNet3DConditionModel(**IMAGE)
        plain = UNet3DConditionModel(**{**IMAGE, "addition_embed_type": None})
    sample, text = inputs["sample"].to("meta"), inputs["encoder_hidden_states"].to("meta")
    with pytest.raises(ConfigError, match="needs text_embeds and time_ids"):
        model(sample, 500, text)
    with pytest.raises(ConfigError, match="needs text_embeds and time_ids"):
        model(sample, 500, text, added_cond_kwargs={"text_embeds": inputs["text_embeds"]})
    with pytest.raises(ConfigError, match="this U-Net has none of them"):
        plain(sample, 500, text, added_cond_kwargs=added(inputs))


@pytest.mark.parametrize("change", [{"addition_embed_type": "image"}, {"addition_time_embed_dim": None}])
def test_additions_that_are_not_known(change: dict[str, Any]) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match="addition_embed_type must be None or 'text_time'"):
        UNet3DConditionModel(**{**IMAGE, **change})


def test_sites_of_the_full_size() -> None:
    with torch.device("meta"):
        model = UNet3DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=IMAGE["down_block_types"],
            up_block_types=IMAGE["up_block_types"],
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        sites = [site for site in model.motion_sites().values() if not site.name.startswith("mid_block")]
        adapter = MotionAdapter.for_sites(sites, numerics="diffusers")
        model.set_motion_adapter(adapter)
    # The published numbers: SDXL's U-Net, and the beta motion module.
    motion = sum(p.numel() for p in adapter.parameters())
    assert motion == 236_779_200
    assert sum(p.numel() for p in model.parameters()) - motion == 2_567_463_684
    assert (len(sites), len(adapter.state_dict())) == (15, 15 * 26)
