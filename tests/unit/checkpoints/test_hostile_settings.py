"""Settings and weights that no program writes end in a message, not in a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from muybridge.checkpoints.lora import read_lora
from muybridge.checkpoints.motion_files import read_motion, read_motion_config
from muybridge.errors import CheckpointError
from muybridge.pipelines.easyanimate.folder import is_published_folder
from muybridge.service.inspection import inspect_path
from muybridge.weights.files import read_weights
from muybridge.weights.loading import named_class

NESTED = "[" * 100_000


def adapter_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "MotionAdapter", **config}))
    save_file({"x": torch.zeros(1)}, folder / "diffusion_pytorch_model.safetensors")
    return folder


def test_json_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    for name in ("config.json", "transformer/config.json"):
        (tmp_path / name).write_text(NESTED)
    save_file({"a.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "lora.safetensors", {"lora_adapter_metadata": NESTED})

    assert not is_published_folder(tmp_path)
    with pytest.raises(CheckpointError, match="is not JSON"):
        read_motion_config(tmp_path)
    with pytest.raises(CheckpointError, match="is not JSON"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"motion_num_attention_heads": None},
        {"motion_num_attention_heads": []},
        {"block_out_channels": "wide"},
        {"motion_layers_per_block": [2, "many"]},
    ],
    ids=str,
)
def test_settings_of_a_motion_adapter_of_another_type(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=f"has {next(iter(change))} .* must be a whole number"):
        read_motion(adapter_folder(tmp_path / "v3", **change))


@pytest.mark.parametrize("named", [{"architectures": {"a": 1}}, {"architectures": 5}, {"_class_name": 5}, {}], ids=str)
def test_a_class_that_is_no_name(tmp_path: Path, named: dict[str, Any]) -> None:
    assert named_class(named) is None
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(named))
    (tmp_path / "model_index.json").write_text("{}")
    assert inspect_path(tmp_path)["parts"]["vae"]["class"] is None


@pytest.mark.parametrize(
    "odd", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "without values"]
)
def test_tensors_that_nothing_can_handle_are_refused_by_name(tmp_path: Path, odd: torch.Tensor) -> None:
    torch.save({"plain": torch.zeros(3), "odd": odd}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="not supported: odd"):
        read_weights(tmp_path / "weights.pt")


def test_shards_in_half_precision_alone(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "v3", block_out_channels=[32])
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    shard = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"
    save_file({"x.y": torch.zeros(1)}, folder / shard)
    index = {"weight_map": {"x.y": shard}}
    (folder / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="no motion modules"):  # so it was read
        read_motion(folder)
