"""The video U-Net without motion is diffusers' image U-Net on every frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import CheckpointError, ConfigError, ShapeError

Inputs = tuple[Tensor, Tensor, Tensor]
ImageMaker = Callable[..., UNet2DConditionModel]


def frame_by_frame(model: UNet2DConditionModel, inputs: Inputs, **residuals: Any) -> Tensor:
    sample, timestep, text = inputs
    frames = []
    for i in range(sample.shape[2]):
        extra = {
            name: of_frame(value, i) if isinstance(value, Tensor) else tuple(of_frame(v, i) for v in value)
            for name, value in residuals.items()
        }
        with torch.no_grad():
            frames.append(model(sample[:, :, i], timestep, text, **extra).sample)
    return torch.stack(frames, dim=2)


def of_frame(residual: Tensor, index: int) -> Tensor:
    return residual if residual.ndim == 4 else residual[:, :, index]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).abs().max() / expected.abs().max())


def like(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_linear_projection": True},
        {"layers_per_block": 2, "transformer_layers_per_block": [2, 1], "attention_head_dim": [2, 8]},
        {"norm_eps": 1e-3, "norm_num_groups": 16, "freq_shift": 1, "flip_sin_to_cos": False},
        {"in_channels": 9, "out_channels": 3},
        {
            "block_out_channels": (32, 32, 64),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        },
    ],
)
def test_equals_the_image_model(
    make_image_model: ImageMaker, inputs: Inputs, settings: dict[str, Any], grad: bool
) -> None:
    model = make_image_model(**settings)
    unet = UNet3DConditionModel.from_unet2d(model)
    inputs = (like((2, settings.get("in_channels", 4), 3, 8, 8), 5), *inputs[1:])
    with torch.set_grad_enabled(grad):
        found = unet(*inputs).sample
    assert relative_error(found, frame_by_frame(model, inputs)) <= 1e-5


@pytest.mark.parametrize("size", [(9, 11), (5, 7), (1, 1), (2, 1), (8, 3)])
def test_any_size(make_image_model: ImageMaker, inputs: Inputs, size: tuple[int, int]) -> None:
    model = make_image_model(
        block_out_channels=(32, 32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    inputs = (like((2, 4, 3, *size), 6), *inputs[1:])
    with torch.no_grad():
        found = UNet3DConditionModel.from_unet2d(model)(*inputs).sample
    assert found.shape == inputs[0].shape
    assert relative_error(found, frame_by_frame(model, inputs)) <= 1e-5


@pytest.mark.parametrize("timestep", [7, 7.0, torch.tensor(7), torch.tensor([7]), torch.tensor([7, 7])])
def test_timestep_in_any_form(unet: UNet3DConditionModel, inputs: Inputs, timestep: Any) -> None:
    with torch.no_grad():
        expected = unet(inputs[0], torch.tensor([7, 7]), inputs[2]).sample
        assert torch.equal(unet(inputs[0], timestep, inputs[2], return_dict=False)[0], expected)


def residual_shapes(batch: int, frames: tuple[int, ...]) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    down = [(batch, c, *frames, s, s) for c, s in ((32, 8), (32, 8), (32, 4), (64, 4))]
    return down, (batch, 64, *frames, 4, 4)


@pytest.mark.parametrize("frames", [(3,), ()], ids=["a residual for each frame", "one for all frames"])
@pytest.mark.parametrize("grad", [True, False])
def test_additional_residuals(
    image_model: UNet2DConditionModel, inputs: Inputs, frames: tuple[int, ...], grad: bool
) -> None:
    unet = UNet3DConditionModel.from_unet2d(image_model)
    down, middle = residual_shapes(2, frames)
    residuals: dict[str, Any] = {
        "down_block_additional_residuals": tuple(like(shape, i) for i, shape in enumerate(down)),
        "mid_block_additional_residual": like(middle, 9),
    }
    kept = [value.clone() for value in residuals["down_block_additional_residuals"]]
    with torch.set_grad_enabled(grad):
        found = unet(*inputs, **residuals).sample
    assert relative_error(found, frame_by_frame(image_model, inputs, **residuals)) <= 1e-5
    assert relative_error(found, frame_by_frame(image_model, inputs)) > 1e-2
    assert all(map(torch.equal, residuals["down_block_additional_residuals"], kept))


def test_each_residual_acts(unet: UNet3DConditionModel, inputs: Inputs) -> None:
    down, _ = residual_shapes(2, (3,))
    nothing = [torch.zeros(shape) for shape in down]
    with torch.no_grad():
        plain = unet(*inputs).sample
        assert torch.equal(unet(*inputs, down_block_additional_residuals=nothing).sample, plain)
        for i, shape in enumerate(down):
            only = [*nothing[:i], like(shape, i), *nothing[i + 1 :]]
            assert relative_error(unet(*inputs, down_block_additional_residuals=only).sample, plain) > 1e-3, i


@pytest.mark.parametrize("count", [0, 3, 5])
def test_wrong_number_of_residuals(unet: UNet3DConditionModel, inputs: Inputs, count: int) -> None:
    with pytest.raises(ShapeError, match=f"must be 4 tensors; given {count}"):
        unet(*inputs, down_block_additional_residuals=[torch.zeros(2, 32, 3, 8, 8)] * count)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (4, 3, 8, 8), (1, 2, 4, 3, 8, 8)])
def test_wrong_number_of_dimensions(unet: UNet3DConditionModel, inputs: Inputs, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\[b, c, f, h, w\]; given \(" + ", ".join(map(str, shape))):
        unet(torch.zeros(shape), *inputs[1:])


@pytest.mark.parametrize("shape", [(1, 5, 16), (6, 5, 16), (5, 16)])
def test_texts_must_be_one_for_each_video(unet: UNet3DConditionModel, inputs: Inputs, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\[2, n, d\].*given \(" + ", ".join(map(str, shape))):
        unet(*inputs[:2], torch.zeros(shape))


def test_frames_are_independent(unet: UNet3DConditionModel, inputs: Inputs) -> None:
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = unet(*inputs).sample[:, :, order]
        found = unet(inputs[0][:, :, order], *inputs[1:]).sample
    assert relative_error(found, expected) <= 1e-6


@pytest.mark.parametrize("grad", [True, False])
def test_inputs_are_not_changed(unet: UNet3DConditionModel, inputs: Inputs, grad: bool) -> None:
    kept = [value.clone() for value in inputs]
    with torch.set_grad_enabled(grad):
        unet(*inputs)
    assert all(map(torch.equal, inputs, kept))


def test_weights_are_shared(image_model: UNet2DConditionModel) -> None:
    unet = UNet3DConditionModel.from_unet2d(image_model)
    ours, theirs = unet.state_dict(), image_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].data_ptr() == value.data_ptr() for name, value in theirs.items())
    assert not unet.training
    assert UNet3DConditionModel.from_unet2d(image_model.train()).training


@pytest.mark.parametrize("subfolder", [None, "unet"])
def test_from_a_folder(
    image_model: UNet2DConditionModel, inputs: Inputs, tmp_path: Path, subfolder: str | None
) -> None:
    image_model.save_pretrained(tmp_path / (subfolder or ""))
    unet = UNet3DConditionModel.from_unet2d(tmp_path, subfolder=subfolder)
    with torch.no_grad():
        assert relative_error(unet(*inputs).sample, frame_by_frame(image_model, inputs)) <= 1e-5


def test_from_a_damaged_folder(image_model: UNet2DConditionModel, tmp_path: Path) -> None:
    image_model.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="UNet2DConditionModel cannot be loaded"):
        UNet3DConditionModel.from_unet2d(tmp_path)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift='scale_shift'"),
        ({"act_fn": "gelu", "dropout": 0.1}, "dropout=0.1, act_fn='gelu'"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type='UNetMidBlock2D'"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim=8"),
        ({"layers_per_block": (1, 2)}, r"layers_per_block=\(1, 2\)"),
        ({"cross_attention_dim": (16, 16)}, r"cross_attention_dim=\(16, 16\)"),
        ({"attention_head_dim": 5}, r"attention_head_dim 5 must divide block_out_channels \(32, 64\)"),
    ],
)
def test_unsupported_settings_are_named(make_image_model: ImageMaker, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        UNet3DConditionModel.from_unet2d(make_image_model(**settings))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, "AttnDownBlock2D are not supported; supported: "),
        ({"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}, "must mirror each other over 2 levels"),
        ({"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}, "mirror each other over 2 levels"),
        ({"attention_head_dim": (4, 4, 4)}, r"all 2 levels or one for each, not \(4, 4, 4\)"),
        ({"transformer_layers_per_block": ((1, 2), 1)}, "one number for all 2 levels"),
        ({"norm_num_groups": 24}, "norm_num_groups 24 must divide"),
    ],
)
def test_wrong_settings_are_named(image_model: UNet2DConditionModel, settings: dict[str, Any], named: str) -> None:
    names = ("block_out_channels", "down_block_types", "up_block_types", "cross_attention_dim", "attention_head_dim")
    with pytest.raises(ConfigError, match=named):
        UNet3DConditionModel(**{**{name: image_model.config[name] for name in names}, **settings})
