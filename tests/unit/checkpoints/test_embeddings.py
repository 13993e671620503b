"""Embeddings of words, in every format that they are shared in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from muybridge.checkpoints.detect import detect_weights
from muybridge.checkpoints.embeddings import check_fits, read_embedding
from muybridge.errors import CheckpointError
from muybridge.service.inspection import inspect_path

VECTORS = torch.arange(6.0).view(2, 3) + torch.eye(2, 3)


def web_ui(path: Path, mapping: Callable[[dict[str, Any]], Any] = dict) -> None:
    content = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": mapping({"*": nn.Parameter(VECTORS)})}
    torch.save({**content, "name": "x", "step": 5, "sd_checkpoint": None}, path)


@pytest.mark.parametrize(
    ("name", "write", "token"),
    [
        ("easy.pt", web_ui, None),
        ("old.pt", lambda path: web_ui(path, nn.ParameterDict), None),
        ("emb.safetensors", lambda path: save_file({"emb_params": VECTORS}, path), None),
        ("learned_embeds.bin", lambda path: torch.save({"<toy>": VECTORS}, path), "<toy>"),
        ("learned_embeds.safetensors", lambda path: save_file({"<toy>": VECTORS}, path), "<toy>"),
    ],
)
def test_formats(tmp_path: Path, name: str, write: Callable[[Path], None], token: str | None) -> None:
    write(tmp_path / name)

    found = read_embedding(tmp_path / name)

    assert (found.name, found.token, found.path) == (Path(name).stem, token, str(tmp_path / name))
    assert len(found.vectors) == 1
    assert torch.equal(found.vectors[0], VECTORS)
    said = inspect_path(tmp_path / name)
    assert (said["kind"], said["variant"]) == ("embedding", "textual-inversion")
    assert "2 vectors of width 3" in said["notes"]
    assert not token or any(token in note for note in said["notes"])


def test_a_single_vector_and_a_folder(tmp_path: Path) -> None:
    torch.save({"<toy>": VECTORS[0]}, tmp_path / "learned_embeds.bin")
    found = read_embedding(tmp_path, name="doll")
    assert found.names == {"doll", "<toy>"}
    assert torch.equal(found.vectors[0], VECTORS[:1])


@pytest.mark.parametrize("keys", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_those_of_sdxl_have_vectors_for_both_encoders(tmp_path: Path, keys: tuple[str, str]) -> None:
    state = {keys[1]: torch.randn(2, 1280), keys[0]: torch.randn(2, 768)}
    save_file(state, tmp_path / "pony.safetensors")
    found = read_embedding(tmp_path / "pony.safetensors")
    assert [tuple(each.shape) for each in found.vectors] == [(2, 768), (2, 1280)]
    assert detect_weights(state).variant == "textual-inversion-sdxl"
    check_fits(found, (768, 1280))
    with pytest.raises(CheckpointError, match=r"768 and 1280 wide \(Stable Diffusion XL\).*768 wide \(Stable Diff"):
        check_fits(found, (768,))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight": torch.ones(2, 3), "b.weight": torch.ones(2, 3)}, "no embedding of one name: it holds a.weight"),
        ({"clip_l": torch.ones(2, 3), "clip_g": torch.ones(1, 4)}, "no embedding"),
        ({"<toy>": torch.full((1, 3), torch.nan)}, "NaN"),
    ],
)
def test_what_is_none(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_embedding(tmp_path / "x.safetensors")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither learned_embeds\.safetensors nor learned_embeds\.bin"):
        read_embedding(tmp_path)
    with pytest.raises(CheckpointError, match="There is no weight file"):
        read_embedding(tmp_path / "none.pt")


def test_code_in_one_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"string_to_param": Evil()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError):
        read_embedding(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()
