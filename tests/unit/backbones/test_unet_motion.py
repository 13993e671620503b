"""Adapters in a U-Net: attaching, taking off, strength, positions, presets, saving, copying."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import CheckpointError, ConfigError, ShapeError
from muybridge.motion import MotionAdapter, MotionSite

Inputs = tuple[Tensor, Tensor, Tensor]
AdapterMaker = Callable[..., MotionAdapter]


def run(unet: UNet3DConditionModel, inputs: Inputs, **options: object) -> Tensor:
    with torch.no_grad():
        return unet(*inputs, **options).sample


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_sites(unet: UNet3DConditionModel) -> None:
    assert {name: site.width for name, site in unet.motion_sites().items()} == {
        "down_blocks.0.motion_modules.0": 32,
        "down_blocks.1.motion_modules.0": 64,
        "mid_block.motion_modules.0": 64,
        "up_blocks.0.motion_modules.0": 64,
        "up_blocks.0.motion_modules.1": 64,
        "up_blocks.1.motion_modules.0": 32,
        "up_blocks.1.motion_modules.1": 32,
    }
    assert not any("motion" in name for name in unet.state_dict())


@pytest.mark.parametrize("only", [("",), ("down_blocks", "up_blocks"), ("up_blocks.1.motion_modules.1",)])
@pytest.mark.parametrize("numerics", ["official-v1", "official-v3", "diffusers"])
def test_attaching_and_taking_off(
    unet: UNet3DConditionModel, make_adapter: AdapterMaker, inputs: Inputs, only: tuple[str, ...], numerics: str
) -> None:
    before, adapter = run(unet, inputs), make_adapter(unet, only, numerics=numerics)
    unet.set_motion_adapter(adapter)
    assert unet.motion_adapter is adapter
    assert difference(run(unet, inputs), before) > 1e-3
    assert unet.remove_motion_adapter() is adapter
    assert unet.motion_adapter is None
    assert torch.equal(run(unet, inputs), before)
    assert unet.remove_motion_adapter() is None


def test_a_second_adapter_takes_the_place_of_the_first(
    unet: UNet3DConditionModel, make_adapter: AdapterMaker, inputs: Inputs
) -> None:
    part = make_adapter(unet, ("mid_block",))
    unet.set_motion_adapter(part)
    expected = run(unet, inputs)
    unet.set_motion_adapter(make_adapter(unet))
    unet.set_motion_adapter(part)
    assert torch.equal(run(unet, inputs), expected)
    assert {name.split(".")[0] for name in unet.state_dict() if "motion_modules" in name} == {"mid_block"}


@pytest.mark.parametrize("numerics", ["official-v2", "official-v3", "diffusers"])
def test_a_fresh_adapter_changes_nothing(
    unet: UNet3DConditionModel, make_adapter: AdapterMaker, inputs: Inputs, numerics: str
) -> None:
    before = run(unet, inputs)
    unet.set_motion_adapter(make_adapter(unet, fresh=True, numerics=numerics))
    assert torch.equal(run(unet, inputs), before)


def test_an_adapter_for_another_backbone_is_refused(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    before, adapter = run(moving, inputs), moving.motion_adapter
    fitting = MotionSite("down_blocks.0.motion_modules.0", 32)
    foreign = [MotionSite("mid_block.motion_modules.0", 128), MotionSite("blocks.7.motion_modules.0", 64)]
    with pytest.raises(ConfigError) as caught:
        moving.set_motion_adapter(MotionAdapter.for_sites([fitting, *foreign]))
    message = str(caught.value)
    assert "2 of its 3 sites" in message
    assert "mid_block.motion_modules.0 (128 channels; here 64)" in message
    assert "blocks.7.motion_modules.0 (64 channels; here no such site)" in message
    assert moving.motion_adapter is adapter
    assert torch.equal(run(moving, inputs), before)


def test_the_modules_stay_the_adapters(moving: UNet3DConditionModel) -> None:
    adapter = moving.motion_adapter
    assert adapter is not None
    moving.double()
    for name, module in adapter.motion_modules():
        assert moving.get_submodule(name) is module
    assert {value.dtype for value in adapter.state_dict().values()} == {torch.float64}


def test_strength(unet: UNet3DConditionModel, moving: UNet3DConditionModel, inputs: Inputs) -> None:
    zero, half, one = (run(moving, inputs, motion_strength=strength) for strength in (0.0, 0.5, 1.0))
    assert torch.equal(one, run(moving, inputs))
    unet.remove_motion_adapter()
    assert torch.equal(zero, run(unet, inputs))
    assert 1e-3 < difference(half, zero) < difference(one, zero)


def test_positions(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    counted = run(moving, inputs)
    for dtype in (torch.int64, torch.float32, torch.float64):
        assert torch.equal(run(moving, inputs, frame_positions=torch.arange(3, dtype=dtype)), counted)
    assert difference(run(moving, inputs, frame_positions=torch.tensor([0.0, 4.0, 8.0])), counted) > 1e-4


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), ()])
def test_positions_must_be_one_a_frame(moving: UNet3DConditionModel, inputs: Inputs, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"frame_positions must be \[3\]; given \("):
        run(moving, inputs, frame_positions=torch.zeros(shape))


def test_more_frames_than_trained_are_a_warning(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    sample = torch.randn(1, 4, 100, 2, 2, generator=torch.Generator().manual_seed(3))
    many = (sample, inputs[1][:1], inputs[2][:1])
    with pytest.warns(UserWarning, match=r"100 frames at once.*trained on 32"):
        found = run(moving, many)
    assert found.isfinite().all()
    assert run(moving, (sample[:, :, :32], *many[1:])).shape[2] == 32  # a warning would be an error here
    moving.remove_motion_adapter()
    assert run(moving, many).shape[2] == 100


def test_motion_makes_frames_see_each_other(moving: UNet3DConditionModel, inputs: Inputs) -> None:
    assert influence_of_a_frame(moving, inputs) > 1e-4


def influence_of_a_frame(unet: UNet3DConditionModel, inputs: Inputs) -> float:
    changed = inputs[0].clone()
    changed[:, :, 0] = 3 * changed[:, :, 0] + 1
    return difference(run(unet, (changed, *inputs[1:]))[:, :, 1:], run(unet, inputs)[:, :, 1:])


def test_presets_pool_where_they_say(unet: UNet3DConditionModel, make_adapter: AdapterMaker, inputs: Inputs) -> None:
    influence, results = {}, {}
    for numerics in ("official-v1", "official-v2", "official-v3", "diffusers"):
        unet.set_motion_adapter(make_adapter(unet, fresh=True, numerics=numerics))
        influence[numerics] = influence_of_a_frame(unet, inputs)
        unet.set_motion_adapter(make_adapter(unet, numerics=numerics))
        results[numerics] = run(unet, inputs)
    # The modules are the identity, yet version 1 pools the statistics of residual blocks over frames.
    assert influence.pop("official-v1") > 1e-2
    assert max(influence.values()) <= 1e-6
    assert torch.equal(results["official-v2"], results["official-v3"])
    assert difference(results["official-v1"], results["official-v3"]) > 1e-3
    assert difference(results["diffusers"], results["official-v3"]) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saving_with_an_adapter(
    moving: UNet3DConditionModel, inputs: Inputs, tmp_path: Path, dtype: torch.dtype
) -> None:
    cast("Any", moving).to(dtype).save_pretrained(tmp_path)
    again = UNet3DConditionModel.from_pretrained(tmp_path, torch_dtype=dtype)
    expected, found = moving.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    assert all(found[name].dtype == dtype and torch.equal(found[name], value) for name, value in expected.items())
    assert again.motion_adapter is not None
    again.float()
    assert difference(run(again, inputs), run(moving.float(), inputs)) <= 1e-6


def test_saving_without_an_adapter(unet: UNet3DConditionModel, inputs: Inputs, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)
    again = UNet3DConditionModel.from_pretrained(tmp_path)
    assert again.motion_adapter is None
    assert not any("motion" in name for name in load_file(tmp_path / "diffusion_pytorch_model.safetensors"))
    assert difference(run(again, inputs), run(unet, inputs)) <= 1e-6


def test_saving_after_taking_off(moving: UNet3DConditionModel, tmp_path: Path) -> None:
    moving.remove_motion_adapter()
    moving.save_pretrained(tmp_path)
    assert UNet3DConditionModel.from_pretrained(tmp_path).motion_adapter is None


def test_a_preset_chosen_while_attached_is_saved(moving: UNet3DConditionModel, inputs: Inputs, tmp_path: Path) -> None:
    adapter = moving.motion_adapter
    assert adapter is not None
    adapter.set_numerics("official-v1")
    moving.save_pretrained(tmp_path)
    again = UNet3DConditionModel.from_pretrained(tmp_path)
    assert again.motion_adapter is not None
    assert again.motion_adapter.settings() == adapter.settings()
    assert difference(run(again, inputs), run(moving, inputs)) <= 1e-6


def test_a_folder_of_the_image_model_is_not_one_of_the_video_model(
    image_model: UNet2DConditionModel, tmp_path: Path
) -> None:
    image_model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a UNet2DConditionModel, not a UNet3DConditionModel"):
        UNet3DConditionModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda unet: pickle.loads(pickle.dumps(unet))])
def test_copies_have_an_adapter_of_their_own(
    moving: UNet3DConditionModel, inputs: Inputs, copied: Callable[[UNet3DConditionModel], UNet3DConditionModel]
) -> None:
    expected, twin = run(moving, inputs), copied(moving)
    assert torch.equal(run(twin, inputs), expected)
    adapter = twin.remove_motion_adapter()
    assert adapter is not None
    assert adapter is not moving.motion_adapter
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.zero_()
    assert torch.equal(run(moving, inputs), expected)
    assert difference(run(twin, inputs), expected) > 1e-3
