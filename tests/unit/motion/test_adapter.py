"""Adapters: making, saving, loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig

FILE = "diffusion_pytorch_model.safetensors"


def test_weight_names_are_site_and_parameter(adapter: MotionAdapter) -> None:
    names = set(adapter.state_dict())
    assert "down_blocks.1.motion_modules.0.proj_out.weight" in names
    assert "up_blocks.0.motion_modules.0.transformer_blocks.0.attention_blocks.1.to_out.0.bias" in names
    assert len(names) == 3 * 26
    assert [name for name, _ in adapter.motion_modules()] == list(adapter.sites)


def test_an_adapter_needs_sites() -> None:
    with pytest.raises(ConfigError, match="at least one site"):
        MotionAdapter.for_sites([])


@pytest.mark.parametrize("name", ["motion_modules.0", "blocks..0", "", "blocks.forward.0"])
def test_names_that_no_site_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match="No motion site can be called"):
        MotionAdapter.for_sites([MotionSite(name, 32)])


def test_an_adapter_is_not_called(adapter: MotionAdapter) -> None:
    with pytest.raises(ConfigError, match="set_motion_adapter"):
        adapter(torch.zeros(1))


@pytest.mark.parametrize(("numerics", "scope"), [("official-v1", "frame"), ("diffusers", "video")])
def test_the_preset_decides_the_norm_scope(numerics: str, scope: str) -> None:
    site = MotionSite("blocks.0.motion_modules.0", 32)
    made = MotionAdapter.for_sites([site], numerics=numerics)
    switched = MotionAdapter.for_sites([site])
    switched.set_numerics(numerics)
    for adapter in (made, switched):
        assert adapter.numerics == numerics
        for _, module in adapter.motion_modules():
            assert isinstance(module.config, TemporalConfig)
            assert module.config.norm_scope == scope
    assert made.settings() == switched.settings()


def test_unknown_preset(adapter: MotionAdapter) -> None:
    with pytest.raises(ConfigError, match=r"'sdxl'.*official-v1"):
        adapter.set_numerics("sdxl")
    assert adapter.numerics == "official-v3"


def test_trained_frames_is_the_smallest() -> None:
    specs = {
        f"blocks.0.motion_modules.{i}": {"kind": "temporal", "width": 32, "config": {"trained_frames": frames}}
        for i, frames in enumerate((32, 24, 64))
    }
    assert MotionAdapter(specs).trained_frames == 24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_folder_round_trip(adapter: MotionAdapter, tmp_path: Path, dtype: torch.dtype) -> None:
    cast("Any", adapter).to(dtype).set_numerics("diffusers")
    adapter.save_pretrained(tmp_path)
    again = MotionAdapter.from_pretrained(tmp_path, torch_dtype=dtype)
    expected, found = adapter.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    assert all(found[name].dtype == dtype and torch.equal(found[name], value) for name, value in expected.items())
    assert again.settings() == adapter.settings()
    assert again.sites == adapter.sites
    configs = [module.config for _, module in again.motion_modules()]
    assert configs == [module.config for _, module in adapter.motion_modules()]


def test_subfolder(adapter: MotionAdapter, tmp_path: Path) -> None:
    adapter.save_pretrained(tmp_path / "motion")
    adapter.save_pretrained(tmp_path)
    for subfolder in ("motion", None):
        found = MotionAdapter.from_pretrained(tmp_path, subfolder=subfolder).state_dict()
        assert all(torch.equal(found[name], value) for name, value in adapter.state_dict().items())


@pytest.fixture
def folder(adapter: MotionAdapter, tmp_path: Path) -> Path:
    adapter.save_pretrained(tmp_path)
    return tmp_path


def load_error(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        MotionAdapter.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def change_weights(folder: Path, name: str, value: torch.Tensor | None) -> None:
    state = load_file(folder / FILE)
    state.pop(name) if value is None else state.update({name: value})
    save_file(state, folder / FILE)


def test_no_weights_file(folder: Path) -> None:
    (folder / FILE).unlink()
    assert "has no weights" in load_error(folder)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights(folder: Path, share: float) -> None:
    path = folder / FILE
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "MotionAdapter cannot be loaded" in load_error(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    name = "up_blocks.0.motion_modules.0.norm.weight"
    change_weights(folder, name, torch.full((64,), value))
    assert f"NaN or infinite values in {name}" in load_error(folder)


def test_missing_weight(folder: Path) -> None:
    name = "up_blocks.0.motion_modules.0.norm.weight"
    change_weights(folder, name, None)
    assert f"no weights for {name}" in load_error(folder)


def test_weight_left_over(folder: Path) -> None:
    change_weights(folder, "up_blocks.3.motion_modules.0.norm.weight", torch.zeros(64))
    assert "does not have: up_blocks.3.motion_modules.0.norm.weight" in load_error(folder)


def test_weight_of_another_shape(folder: Path) -> None:
    name = "up_blocks.0.motion_modules.0.norm.weight"
    change_weights(folder, name, torch.zeros(32))
    assert name in load_error(folder)


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "no config.json" in load_error(folder)


@pytest.mark.parametrize(("text", "words"), [("[]", "holds a list"), ("{", "cannot be read"), ("", "cannot be read")])
def test_damaged_config(folder: Path, text: str, words: str) -> None:
    (folder / "config.json").write_text(text)
    assert words in load_error(folder)


def test_config_of_another_class(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "AutoencoderKL"}))
    assert "holds a AutoencoderKL, not a MotionAdapter" in load_error(folder)


def test_config_of_an_unknown_kind(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"temporal"', '"from-the-future"'))
    with pytest.raises(ConfigError, match=r"from-the-future.*Known kinds"):
        MotionAdapter.from_pretrained(folder)


def test_no_folder(tmp_path: Path) -> None:
    assert "cannot be loaded" in load_error(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="Name the folder"):
        MotionAdapter.from_pretrained(None)
