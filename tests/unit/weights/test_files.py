"""Weight files that are what they say, and others."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from muybridge.errors import CheckpointError
from muybridge.weights.files import read_weights
from muybridge.weights.folder_files import read_folder_weights

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1, 2])}


def assert_weights(path: Path) -> None:
    found = read_weights(path)
    assert list(found) == list(WEIGHTS) or set(found) == set(WEIGHTS)
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "controlnet", "model", "module"])
def test_torch_files(tmp_path: Path, new_format: bool, wrapper: str | None) -> None:
    content = {**WEIGHTS, "global_step": 3} if wrapper is None else {wrapper: WEIGHTS, "epoch": 1}
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=new_format)
    assert_weights(tmp_path / "w.ckpt")


def test_parameters_become_tensors_of_the_file(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    torch.save(dict(layer.named_parameters()), tmp_path / "w.pth")
    assert torch.equal(read_weights(tmp_path / "w.pth")["weight"], layer.weight)


@pytest.mark.parametrize("name", ["absent.ckpt", "absent.safetensors", "."])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="There is no weight file"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w.ckpt", "w.safetensors"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"w\.\w+ is empty; copy or download it again"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("length", [1, 7, 8, 20, -1, -20])
def test_truncated_safetensors(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(WEIGHTS)[:length])
    with pytest.raises(
        CheckpointError, match=r"w.safetensors (is damaged: it begins as safetensors|has only \d bytes)"
    ):
        read_weights(path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_truncated_torch_file(tmp_path: Path, new_format: bool, share: float) -> None:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer, _use_new_zipfile_serialization=new_format)
    whole, path = buffer.getvalue(), tmp_path / "w.ckpt"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"w.ckpt"):
        read_weights(path)


# Each of these makes the reader of pickles fail in another way.
@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x80\x02q\xcb.",
        b"\x80\x02r\xa1",
        b"\x80\x02j\xe0\xcf\x87\n.",
        b"r\xa1",
        b"\x00" * 64,
        b"\xff",
    ],
)
def test_something_else(tmp_path: Path, content: bytes) -> None:
    for name in ("w.ckpt", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
        ({"epoch": 1}, "no tensors"),
        ({"state_dict": {}}, "no tensors"),
    ],
)
def test_no_dictionary_of_tensors(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match=words):
        read_weights(tmp_path / "w.ckpt")


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match=r"refused.*safetensors"):
        read_weights(tmp_path / "w.ckpt")


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps({"path": tmp_path}))
    with pytest.raises(CheckpointError, match="refused"):
        read_weights(tmp_path / "w.ckpt")


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"state_dict": WEIGHTS}, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        {"state_dict": {"model": {"module": WEIGHTS}}, "step": torch.ones(1)},
        {"model_ema": {"state_dict": WEIGHTS}},
        {"ema": {"a.weight": torch.zeros(1)}, "model": WEIGHTS},
        {"model": {"name": "x"}, "ema": WEIGHTS},
        {"a": {"weight": WEIGHTS["a.weight"], "bias": WEIGHTS["a.bias"], "n": 1}, "epoch": 3},
    ],
)
def test_wrappings(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.ckpt")
    assert_weights(tmp_path / "w.ckpt")


def test_the_lone_weights_of_an_optimizer_are_none(tmp_path: Path) -> None:
    torch.save({"optimizer": {"state": {0: {"step": torch.ones(1)}}}}, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_weights(tmp_path / "w.ckpt")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of two shards."""
    files = {}
    for number, (name, value) in enumerate(WEIGHTS.items()):
        files[name] = f"pytorch_model-{number}.bin"
        torch.save({name: value}, tmp_path / files[name])
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    return tmp_path


def test_shards(shards: Path) -> None:
    found = read_folder_weights(shards)
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "index.json cannot be read: it is not JSON"),
        ("[]", "holds a list, not an index of shards"),
        ("{}", "is no index of shards: it has no weight_map"),
        ('{"weight_map": {"a": "../a.bin"}}', "names files outside its folder"),
        ('{"weight_map": {"a": "..\\\\a.bin"}}', "names files outside its folder"),
        ('{"weight_map": {"a": ".."}}', "names files outside its folder"),
        ('{"weight_map": {"a": 3}}', "names files outside its folder"),
        ('{"weight_map": {"a": "a.bin"}}', r"incomplete: .* a\.bin is missing or empty. Download the folder again"),
    ],
)
def test_damaged_indexes(shards: Path, content: str, message: str) -> None:
    (shards / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_folder_weights(shards)


def test_an_empty_shard(shards: Path) -> None:
    (shards / "pytorch_model-1.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"names pytorch_model-1\.bin is missing or empty"):
        read_folder_weights(shards)
