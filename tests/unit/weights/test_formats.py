"""What files are, from their first bytes, whatever they are called."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from muybridge.errors import CheckpointError
from muybridge.weights.files import read_weights
from muybridge.weights.formats import FileFormat, file_format

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3)}


def torch_bytes(new: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (save(WEIGHTS), FileFormat.SAFETENSORS),
        (torch_bytes(new=True), FileFormat.ZIP),
        (torch_bytes(new=False), FileFormat.TORCH_LEGACY),
        (pickle.dumps({"a": 1}), FileFormat.PICKLE),
        (b"GGUF\x03\0\0\0\1", FileFormat.GGUF),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", FileFormat.LFS_POINTER),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", FileFormat.PAGE),
        (b'{"error":"Invalid username or password."}', FileFormat.PAGE),
        (b"", FileFormat.EMPTY),
        (b"\0\0\0\x20ftypisom", FileFormat.OTHER),
        (b"\xff" * 8 + b"{}", FileFormat.OTHER),
    ],
)
def test_first_bytes(tmp_path: Path, content: bytes, expected: FileFormat) -> None:
    (tmp_path / "file").write_bytes(content)
    assert file_format(tmp_path / "file") is expected


@pytest.mark.parametrize("name", ["w.safetensors", "w.ckpt", "w", "W.SAFETENSORS", "w.mp4"])
@pytest.mark.parametrize("content", [save(WEIGHTS), torch_bytes(new=True), torch_bytes(new=False)])
def test_the_name_does_not_matter(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert torch.equal(read_weights(tmp_path / name)["a.weight"], WEIGHTS["a.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of Git LFS.*git lfs pull"),
        (b"<!doctype html><html>", r"is a web page, not a weight file.*/resolve/"),
        (b"\0\0\0\x20ftypisom", r"is no weight file: its content is neither"),
        (b"abc", r"has only 3 bytes: it was cut short"),
        (save(WEIGHTS)[:-1], r"is damaged: it begins as safetensors"),
        (torch_bytes(new=True)[:-30], r"is damaged: it begins as a torch file"),
        (torch_bytes(new=False)[:-3], r"is damaged: it begins as a torch file"),
        (pickle.dumps({"a": 1}), r"is refused: a plain pickle"),
    ],
)
@pytest.mark.parametrize("name", ["w.ckpt", "w.safetensors"])
def test_what_is_no_weight_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(tmp_path / name)
    assert "run" not in str(caught.value).replace("run `git", "")
    assert not any(word in str(caught.value) for word in ("Weights only", "HeaderTooLarge", "torch.load", "\x1b"))


def test_other_archives(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("weights")
    archive = shutil.make_archive(str(tmp_path / "w"), "zip", tmp_path / "in")
    with pytest.raises(CheckpointError, match=r"a zip archive that torch did not write. Unpack it"):
        read_weights(archive)
    (tmp_path / "in" / "constants.pkl").write_bytes(b"")
    archive = shutil.make_archive(str(tmp_path / "w"), "zip", tmp_path / "in")
    with pytest.raises(CheckpointError, match="is a TorchScript program, not weights"):
        read_weights(archive)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\)"):
        file_format(tmp_path)
