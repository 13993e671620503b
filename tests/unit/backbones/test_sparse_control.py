"""SparseCtrl at tiny size: what it gives, what it refuses, and its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SparseControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.motion import TemporalConfig

MOTION = TemporalConfig(attentions_per_block=1, num_heads=4)
FRAMES = 3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomised(model: SparseControlModel) -> SparseControlModel:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


@pytest.fixture(params=["rgb", "scribble"])
def control(request: pytest.FixtureRequest, unet: UNet3DConditionModel) -> SparseControlModel:
    return randomised(SparseControlModel.from_unet(unet, request.param, MOTION))


@pytest.fixture
def rgb(unet: UNet3DConditionModel) -> SparseControlModel:
    return randomised(SparseControlModel.from_unet(unet, "rgb", MOTION))


def condition_of(model: SparseControlModel, seed: int = 3, batch: int = 1) -> Tensor:
    size = 8 if model.kind == "rgb" else 64
    condition = torch.zeros(batch, model.condition_channels, FRAMES, size, size)
    condition[:, :-1, 1] = noise(batch, model.condition_channels - 1, size, size, seed=seed)
    condition[:, -1, 1] = 1
    return condition


def run(model: SparseControlModel, condition: Tensor, batch: int = 1, **options: Any) -> list[Tensor]:
    text = noise(batch, 5, 16, seed=2)
    with torch.no_grad():
        found = model(noise(batch, 4, FRAMES, 8, 8), torch.tensor(500), text, condition, **options)
    return [*found.down_block_residuals, found.mid_block_residual]


def assert_same(one: SparseControlModel, other: SparseControlModel) -> None:
    theirs = other.state_dict()
    assert theirs.keys() == one.state_dict().keys()
    assert all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())
    condition = condition_of(one)
    for a, b in zip(run(one, condition), run(other, condition), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # where weights lie in memory changes the rounding


@pytest.mark.parametrize("kind", ["rgb", "scribble"])
def test_fresh_one_changes_nothing(unet: UNet3DConditionModel, kind: Any) -> None:
    control = SparseControlModel.from_unet(unet, kind, MOTION)

    assert all(not residual.any() for residual in run(control, condition_of(control)))


def test_fresh_one_has_copies_of_the_layers(unet: UNet3DConditionModel) -> None:
    control = SparseControlModel.from_unet(unet, "rgb", MOTION)
    own, other = control.down_blocks[0], unet.down_blocks[0]

    for name, value in other.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name
        assert own.state_dict()[name].data_ptr() != value.data_ptr(), name
    assert torch.equal(control.conv_in.weight, unet.conv_in.weight)


def test_motion_modules_sit_in_the_down_path_only(rgb: SparseControlModel) -> None:
    adapter = rgb.motion_adapter

    assert adapter is not None
    assert all(name.startswith("down_blocks.") for name in adapter.sites)
    assert len(adapter.sites) == len(rgb.down_blocks)  # one row at each level of the tiny one


def test_fresh_one_learns_from_the_first_step(unet: UNet3DConditionModel) -> None:
    control = SparseControlModel.from_unet(unet, "rgb", MOTION)
    control.enable_gradient_checkpointing()
    arguments = (noise(1, 4, FRAMES, 8, 8), torch.tensor(500), noise(1, 5, 16, seed=2))

    added = control(*arguments, condition_of(control))
    unet(*arguments, added.down_block_residuals, added.mid_block_residual).sample.square().mean().backward()

    gradient = control.controlnet_mid_block.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_made_of_an_image_model_of_diffusers(image_model: UNet2DConditionModel) -> None:
    control = SparseControlModel.from_unet(image_model, "rgb", MOTION)

    assert torch.equal(control.conv_in.weight, image_model.conv_in.weight)


def test_residuals_fit_the_unet(control: SparseControlModel, unet: UNet3DConditionModel) -> None:
    *down, mid = run(control, condition_of(control))
    arguments = (noise(1, 4, FRAMES, 8, 8), torch.tensor(500), noise(1, 5, 16, seed=2))

    with torch.no_grad():
        plain, controlled = unet(*arguments).sample, unet(*arguments, down, mid).sample

    assert float((plain - controlled).abs().max()) > 1e-3


def test_the_noisy_sample_is_not_seen(rgb: SparseControlModel) -> None:
    condition, text = condition_of(rgb), noise(1, 5, 16, seed=2)

    with torch.no_grad():
        one, other = (rgb(noise(1, 4, FRAMES, 8, 8, seed=s), 500, text, condition).mid_block_residual for s in (0, 1))

    assert torch.equal(one, other)


def test_the_condition_reaches_other_frames_through_motion_modules(rgb: SparseControlModel) -> None:
    one, other = run(rgb, condition_of(rgb, seed=3)), run(rgb, condition_of(rgb, seed=4))
    rgb.remove_motion_adapter()
    still, still_other = run(rgb, condition_of(rgb, seed=3)), run(rgb, condition_of(rgb, seed=4))

    assert not torch.allclose(one[-1][:, :, 0], other[-1][:, :, 0])
    assert torch.equal(still[-1][:, :, 0], still_other[-1][:, :, 0])


def test_one_condition_serves_a_batch(rgb: SparseControlModel) -> None:
    condition = condition_of(rgb)

    shared, given = run(rgb, condition, batch=2), run(rgb, condition.repeat(2, 1, 1, 1, 1), batch=2)

    for one, other in zip(shared, given, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_conditions_repeat_as_guidance_repeats_the_batch(rgb: SparseControlModel) -> None:
    two = condition_of(rgb, batch=2)

    repeated, given = run(rgb, two, batch=4), run(rgb, torch.cat([two, two]), batch=4)

    assert not torch.allclose(repeated[-1][0], repeated[-1][1])
    torch.testing.assert_close(repeated[-1], given[-1])


def test_scale_is_a_factor(rgb: SparseControlModel) -> None:
    condition = condition_of(rgb)

    for whole, half in zip(run(rgb, condition), run(rgb, condition, conditioning_scale=0.5), strict=True):
        torch.testing.assert_close(whole * 0.5, half)


def test_guess_mode_weakens_fine_features(rgb: SparseControlModel) -> None:
    condition = condition_of(rgb)
    plain, guessed = run(rgb, condition), run(rgb, condition, guess_mode=True)

    torch.testing.assert_close(plain[0] * 0.1, guessed[0])
    torch.testing.assert_close(plain[-1], guessed[-1])


def test_nearly_constant_features_keep_their_digits(rgb: SparseControlModel) -> None:
    condition = condition_of(rgb)
    single = run(rgb, condition)
    precise = rgb.double()

    with torch.no_grad():
        arguments = (noise(1, 4, FRAMES, 8, 8).double(), torch.tensor(500), noise(1, 5, 16, seed=2).double())
        found = precise(*arguments, condition.double()).mid_block_residual

    assert float((single[-1] - found).abs().max() / found.abs().max()) < 2e-5


def test_text_for_each_frame(rgb: SparseControlModel) -> None:
    condition, sample = condition_of(rgb), noise(1, 4, FRAMES, 8, 8)
    text = noise(1, 5, 16, seed=2)

    with torch.no_grad():
        shared = rgb(sample, 500, text, condition).mid_block_residual
        each = rgb(sample, 500, text[:, None].repeat(1, FRAMES, 1, 1), condition).mid_block_residual

    torch.testing.assert_close(shared, each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5, FRAMES, 4, 4), r"for latents of \(4, 4\)"),
        ((1, 4, FRAMES, 8, 8), r"condition must be \[a, 5, 3, h, w\]"),
        ((1, 5, FRAMES + 1, 8, 8), r"condition must be \[a, 5, 3, h, w\]"),
        ((2, 5, FRAMES, 8, 8), "divides the batch of 1"),
    ],
)
def test_conditions_of_other_shapes_are_refused(rgb: SparseControlModel, shape: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        run(rgb, torch.zeros(shape))


def test_text_of_another_batch_is_refused(rgb: SparseControlModel) -> None:
    with pytest.raises(ShapeError, match=r"encoder_hidden_states must be \[1, n, d\]"):
        rgb(noise(1, 4, FRAMES, 8, 8), 500, noise(2, 5, 16), condition_of(rgb))


def test_unets_of_sdxl_are_refused(make_image_model: Callable[..., UNet2DConditionModel]) -> None:
    sdxl = make_image_model(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64
    )

    with pytest.raises(ConfigError, match="not made for U-Nets of SDXL"):
        SparseControlModel.from_unet(sdxl, "rgb", MOTION)


def test_saved_and_loaded_is_the_same(control: SparseControlModel, tmp_path: Path) -> None:
    control.save_pretrained(tmp_path)

    loaded = SparseControlModel.from_pretrained(tmp_path)

    assert loaded.kind == control.kind
    assert loaded.numerics == "official-v3"
    assert_same(control, loaded)


def test_a_folder_with_nothing_but_half_precision(rgb: SparseControlModel, tmp_path: Path) -> None:
    rgb.save_pretrained(tmp_path)
    plain = tmp_path / "diffusion_pytorch_model.safetensors"
    plain.rename(plain.with_suffix(".fp16.safetensors"))
    assert_same(SparseControlModel.from_pretrained(tmp_path), rgb)


def test_numerics_are_saved(rgb: SparseControlModel, tmp_path: Path) -> None:
    rgb.set_numerics("diffusers")
    rgb.save_pretrained(tmp_path)

    assert SparseControlModel.from_pretrained(tmp_path).numerics == "diffusers"


def test_numerics_need_motion_modules(rgb: SparseControlModel) -> None:
    rgb.remove_motion_adapter()

    with pytest.raises(ConfigError, match="no motion modules"):
        rgb.set_numerics("diffusers")


def test_missing_weights_are_named(rgb: SparseControlModel, tmp_path: Path) -> None:
    rgb.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["controlnet_mid_block.weight"]
    save_file(state, path, {"format": "pt"})

    with pytest.raises(CheckpointError, match=r"no weights for controlnet_mid_block\.weight"):
        SparseControlModel.from_pretrained(tmp_path)


def test_folder_of_another_model_is_refused(unet: UNet3DConditionModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)

    with pytest.raises(CheckpointError, match="holds a UNet3DConditionModel, not a SparseControlModel"):
        SparseControlModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_missing_folder_is_refused(folder: str | None, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        SparseControlModel.from_pretrained(None if folder is None else tmp_path / folder)


def original_file(model: SparseControlModel, path: Path, drop: str = "\0") -> Path:
    state = {
        key.replace(".motion_modules.0.", ".motion_modules.0.temporal_transformer."): value
        for key, value in model.state_dict().items()
        if not key.startswith(drop)
    }
    torch.save({"controlnet": {**state, "animatediff_config": "dummy"}}, path)
    return path


def test_original_file_is_read_back(control: SparseControlModel, tmp_path: Path) -> None:
    path = original_file(control, tmp_path / "v3.ckpt")

    # The two groups of norms and the number of heads are what a file does not tell.
    loaded = SparseControlModel.from_single_file(path, num_heads=4, norm_num_groups=8)

    assert loaded.kind == control.kind
    assert_same(control, loaded)


def test_a_file_can_be_read_in_half_precision(rgb: SparseControlModel, tmp_path: Path) -> None:
    path = original_file(rgb, tmp_path / "v3.ckpt")

    loaded = SparseControlModel.from_single_file(path, num_heads=4, norm_num_groups=8, torch_dtype=torch.bfloat16)

    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("controlnet_cond_embedding", "is not a SparseCtrl: it has no controlnet_cond_embedding"),
        ("conv_in", r"is incomplete: conv_in\.weight is missing"),
        ("time_embedding", r"no weights for time_embedding\.linear_1"),
    ],
)
def test_incomplete_files_are_refused(rgb: SparseControlModel, tmp_path: Path, drop: str, message: str) -> None:
    path = original_file(rgb, tmp_path / "v3.ckpt", drop)

    with pytest.raises(CheckpointError, match=message):
        SparseControlModel.from_single_file(path, num_heads=4, norm_num_groups=8)


def test_file_without_motion_modules_is_refused(rgb: SparseControlModel, tmp_path: Path) -> None:
    rgb.remove_motion_adapter()
    path = original_file(rgb, tmp_path / "v3.ckpt")

    with pytest.raises(CheckpointError, match="has no motion modules"):
        SparseControlModel.from_single_file(path)


def test_features_of_diffusers_that_are_not_here_are_named() -> None:
    with torch.device("meta"):
        reference = SparseControlNetModel(
            block_out_channels=(32, 32),
            down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            cross_attention_dim=16,
            concat_conditioning_mask=False,
        )

    with pytest.raises(ConfigError, match="concat_conditioning_mask=False"):
        SparseControlModel.from_diffusers(reference)
