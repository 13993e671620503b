"""What `muybridge inspect` says of files and folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from muybridge.checkpoints.motion_export import original_weights, write_motion
from muybridge.errors import CheckpointError, MuybridgeError
from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig
from muybridge.pipelines import load_pipeline
from muybridge.pipelines.planning import plan_video
from muybridge.service.inspection import inspect_path

SITES = [MotionSite("down_blocks.0.motion_modules.0", 32)] + [
    MotionSite(f"up_blocks.0.motion_modules.{i}", 32) for i in range(2)
]


@pytest.fixture
def adapter() -> MotionAdapter:
    return MotionAdapter.for_sites(SITES, config=TemporalConfig(trained_frames=24), numerics="official-v1")


def test_a_motion_file(adapter: MotionAdapter, tmp_path: Path) -> None:
    path = write_motion(adapter, tmp_path / "x.safetensors", "original")
    found = inspect_path(path)
    assert json.loads(json.dumps(found)) == found
    assert (found["kind"], found["variant"], found["layout"]) == ("motion-module", "animatediff-v1", "original")
    assert found["decided_by"] == "keys and shapes"
    assert found["settings"]["numerics"] == "official-v1"
    assert found["num_tensors"] == len(original_weights(adapter)) == 3 * 28
    assert found["dtypes"] == {"float32": 84}
    assert found["size_bytes"] == path.stat().st_size
    assert found["non_finite"] == []


def test_damage_is_shown_and_not_an_error(adapter: MotionAdapter, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in original_weights(adapter).items()}
    victims = [key for key in state if key.endswith("proj_in.bias")][:2]
    state[victims[0]][3] = torch.nan
    state[victims[1]][0] = torch.inf
    half = {key: value.half() for key, value in state.items()}
    save_file(half, tmp_path / "x.safetensors")
    found = inspect_path(tmp_path / "x.safetensors")
    assert (found["non_finite"], found["dtypes"]) == (victims, {"float16": 84})
    eighth = {key: value.to(torch.float8_e5m2) for key, value in state.items()}
    torch.save(eighth, tmp_path / "x.pth")
    assert inspect_path(tmp_path / "x.pth")["non_finite"] == victims


@pytest.mark.parametrize("layout", ["diffusers", "muybridge"])
def test_adapter_folders(adapter: MotionAdapter, tmp_path: Path, layout: str) -> None:
    found = inspect_path(write_motion(adapter, tmp_path / "adapter", layout))
    assert (found["kind"], found["variant"], found["layout"]) == ("motion-module", "animatediff-v1", layout)
    assert found["num_parameters"] >= 3 * (22 * 32**2 + 21 * 32)
    assert found["size_bytes"] > 0


def test_a_pipeline_folder(saved_pipeline: Path, shipped_model: str) -> None:
    found = inspect_path(saved_pipeline)
    assert (found["kind"], found["variant"], found["class"]) == ("pipeline", "animatediff", "AnimateDiffPipeline")
    assert found["settings"] == {"default_steps": 3, "default_guidance": 5.0}
    assert found["parts"]["motion_adapter"] == {"class": "MotionAdapter", "variant": "animatediff-v3"}
    assert found["parts"]["vae"]["class"] == "AutoencoderKL"
    assert inspect_path(shipped_model)["variant"] == "animatediff"
    assert inspect_path(saved_pipeline / "unet")["kind"] == "base-model"
    assert inspect_path(saved_pipeline / "text_encoder")["kind"] == "unknown"


@pytest.mark.parametrize("family", ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "Other"])
def test_folders_of_diffusers(tmp_path: Path, family: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": family}))
    expected = {"StableDiffusionPipeline": "base-sd15", "StableDiffusionXLPipeline": "base-sdxl"}
    found = inspect_path(tmp_path)
    assert found["variant"] == expected.get(family, "unknown")
    assert (found["notes"] == []) == (family in expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_image_prompt_adapter(tmp_path: Path, suffix: str) -> None:
    """As safetensors, and as the published pickles, whose parts are nested."""
    parts = {
        "image_proj": {"proj.weight": torch.ones(32, 4), "norm.weight": torch.ones(8)},
        "ip_adapter": {f"{2 * i + 1}.to_{n}_ip.weight": torch.ones(2, 768) for i in range(16) for n in "kv"},
    }
    path = tmp_path / f"x{suffix}"
    flat = {f"{part}.{key}": value for part, own in parts.items() for key, value in own.items()}
    save_file(flat, path) if suffix == ".safetensors" else torch.save(parts, path)
    found = inspect_path(path)
    assert (found["kind"], found["variant"]) == ("ip-adapter", "ip-adapter-sd15")
    assert (found["num_tensors"], found["notes"]) == (34, ["4 tokens from CLIP's embedding of 4 channels"])
    torch.save({"other": parts["image_proj"]}, tmp_path / "y.bin")
    assert inspect_path(tmp_path / "y.bin")["kind"] == "unknown"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="has only 2 bytes: it was cut short"):
        inspect_path(tmp_path / "x.safetensors")
    for path in (tmp_path / "none.ckpt", tmp_path / "none.mp4", tmp_path):
        with pytest.raises(MuybridgeError):
            inspect_path(path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not the settings of a model"):
        inspect_path(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "MotionAdapter"}')
    with pytest.raises(CheckpointError, match=r"has no weights: no \.safetensors or \.bin"):
        inspect_path(tmp_path)


def test_weights_are_told_from_videos_by_their_content(tmp_path: Path) -> None:
    save_file({"something.else": torch.ones(1)}, tmp_path / "w.mp4")
    assert inspect_path(tmp_path / "w.mp4")["kind"] == "unknown"
    torch.save({"something.else": torch.ones(1)}, tmp_path / "weights")
    assert inspect_path(tmp_path / "weights")["num_tensors"] == 1
    for name, content, message in (
        ("w.mp4", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("w.gif", b"<!DOCTYPE html>", "a web page"),
        ("w", b"GGUF\x03" + b"\0" * 64, "GGUF"),
        ("w.gguf", b"nothing of this kind", "is no weight file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            inspect_path(tmp_path / name)


def test_weights_in_8_bits_raise_no_alarm(tmp_path: Path) -> None:
    names = [name for name in dir(torch) if name.startswith("float8_")]
    state = {name: torch.full((4,), 0x38, dtype=torch.uint8).view(getattr(torch, name)) for name in names}
    torch.save(state | {"int8": torch.ones(2).char()}, tmp_path / "w.ckpt")
    found = inspect_path(tmp_path / "w.ckpt")
    assert (found["num_tensors"], found["non_finite"]) == (len(names) + 1, [])


def test_a_pipeline_with_damaged_settings_is_described_with_what_is_wrong(saved_pipeline: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved_pipeline, tmp_path / "model"))
    (folder / "unet" / "config.json").write_text("{")
    found = inspect_path(folder)
    assert found["variant"] == "unknown"
    assert "config.json" in found["notes"][0]
    assert "problem" in found["parts"]["unet"]


def test_a_later_easyanimate_is_told_and_refused(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "EasyAnimateTransformer3DModel"}')
    (tmp_path / "model_index.json").write_text('{"_class_name": "EasyAnimatePipeline"}')
    assert inspect_path(tmp_path)["variant"] == "easyanimate-v5"
    for use in (load_pipeline, plan_video):
        with pytest.raises(CheckpointError, match=r"V5 or V5.1 .* has other networks than V3 and V2"):
            use(tmp_path)
