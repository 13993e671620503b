"""The parts of a pipeline folder, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from muybridge.checkpoints import parts, read_model_index
from muybridge.errors import CheckpointError
from muybridge.pipelines import AnimateDiffPipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(saved_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_pipeline, tmp_path / "model"))


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path: Path, value: float) -> str:
    """Put one bad number into a weight file; the name of the weight."""
    weights = load_file(path)
    name = sorted(weights)[3]
    weights[name].view(-1)[0] = value
    save_file(weights, path, {"format": "pt"})
    return name


def test_parts_load(folder: Path) -> None:
    index = read_model_index(folder)

    assert index["_class_name"] == "AnimateDiffPipeline"
    assert parts.load_vae(folder, torch.bfloat16).dtype == torch.bfloat16
    assert parts.load_text_encoder(folder, torch.bfloat16).dtype == torch.bfloat16
    assert parts.load_unet(folder, torch.bfloat16).dtype == torch.bfloat16
    assert parts.load_motion_adapter(folder, torch.bfloat16).dtype == torch.bfloat16
    assert parts.load_tokenizer(folder, index)("a red circle").input_ids[1:3] != []
    assert isinstance(parts.load_scheduler(folder, index), DDIMScheduler)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no model_index.json; it is not the folder of a pipeline"),
        (b"{", "model_index.json cannot be read"),
        (b"\xff\xfe\x00", "model_index.json cannot be read"),
        (b"[]", "model_index.json holds a list, not the parts of a pipeline"),
    ],
)
def test_a_damaged_index(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "model_index.json").write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        read_model_index(tmp_path)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "unet", "scheduler", "motion_adapter"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)

    with pytest.raises(CheckpointError, match=f"{folder / part} is missing; a pipeline has a folder for each part"):
        AnimateDiffPipeline.from_pretrained(folder)


def test_a_missing_part_is_not_looked_for_on_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "vae")
    monkeypatch.chdir(folder.parent)

    with pytest.raises(CheckpointError, match=r"^model/vae is missing"):
        AnimateDiffPipeline.from_pretrained("model")


@pytest.mark.parametrize(
    "file", [f"unet/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors", f"motion_adapter/{WEIGHTS}"]
)
@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_damaged_weights_name_their_part(folder: Path, file: str, damage: Callable[[Path], None]) -> None:
    damage(folder / file)

    with pytest.raises(CheckpointError, match=f"cannot be loaded from {folder / Path(file).parent}"):
        AnimateDiffPipeline.from_pretrained(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "file", [f"unet/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors", f"motion_adapter/{WEIGHTS}"]
)
def test_weights_that_are_no_numbers_are_named(folder: Path, file: str, value: float) -> None:
    name = spoil(folder / file, value)

    with pytest.raises(CheckpointError, match=f"{Path(file).parent} has NaN or infinite values in .*{name}"):
        AnimateDiffPipeline.from_pretrained(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "motion_adapter"])
def test_another_class_is_refused(folder: Path, part: str) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "AutoencoderTiny"}))

    with pytest.raises(CheckpointError, match=f"{part} holds a AutoencoderTiny, not a "):
        AnimateDiffPipeline.from_pretrained(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "motion_adapter"])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00"])
def test_damaged_settings_of_a_part(folder: Path, part: str, content: bytes) -> None:
    (folder / part / "config.json").write_bytes(content)

    with pytest.raises(CheckpointError, match=f"{part}/config.json cannot be read"):
        AnimateDiffPipeline.from_pretrained(folder)


@pytest.mark.parametrize("part", ["tokenizer", "scheduler"])
@pytest.mark.parametrize(
    "entry", [None, "DDIMScheduler", ["diffusers"], ["transformers", "NoSuchClass"], ["diffusers", "AutoencoderKL"]]
)
def test_the_index_must_name_a_fitting_class(folder: Path, part: str, entry: Any) -> None:
    change_index(folder, **{part: entry})

    with pytest.raises(CheckpointError, match=f"must name a .* for {part}, as .library, class.; it has"):
        AnimateDiffPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer/tokenizer.json", b""),
        ("tokenizer/tokenizer.json", b"{"),
        ("tokenizer/tokenizer.json", b'{"a": 1}'),
        ("scheduler/scheduler_config.json", b""),
        ("scheduler/scheduler_config.json", b"{"),
        ("scheduler/scheduler_config.json", b'{"beta_schedule": "no such schedule"}'),
    ],
)
def test_damaged_tokenizer_or_scheduler(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)

    with pytest.raises(CheckpointError, match=f"cannot be loaded from {folder / Path(file).parent}"):
        AnimateDiffPipeline.from_pretrained(folder)
