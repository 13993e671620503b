"""Equality with EasyAnimate's transformer, on the numbers it gave for small random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import PUBLISHED_KEYS, published_keywords
from muybridge.weights.keymap import apply_key_map

CASES = ("easyanimate_v3_transformer_t2v", "easyanimate_v3_transformer_i2v", "easyanimate_v3_transformer_size128")
MANIFESTS = (
    "easyanimate_v3_transformer_manifest",
    "easyanimate_v3_transformer_manifest_inpaint_sample128",
    "easyanimate_v3_transformer_manifest_t2v_in4_sample64",
)


def published_folder(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    folder.mkdir()
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    leftovers = {"decay": 0.999, "inv_gamma": 1.0, "optimization_step": 5}
    (folder / "config.json").write_text(json.dumps({"_class_name": "Transformer3DModel", **config, **leftovers}))
    return folder


def inputs(tensors: dict[str, Tensor]) -> dict[str, Any]:
    given = {k.removeprefix("inputs/"): v for k, v in tensors.items() if k.startswith("inputs/")}
    sizes = {k.removeprefix("added_cond."): given.pop(k) for k in list(given) if k.startswith("added_cond.")}
    return {**given, "added_cond_kwargs": sizes or {"resolution": None, "aspect_ratio": None}}


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_transformer_equals_the_original(golden: Any, tmp_path: Path, case: str, grad: bool) -> None:
    tensors, meta = golden(case)
    model = Transformer3DModel.from_pretrained(published_folder(tmp_path / "transformer", tensors, meta["config"]))
    with torch.set_grad_enabled(grad):
        found = model(**inputs(tensors)).sample
    assert error(found.detach(), tensors["outputs/sample"]) <= 1e-5


def test_it_comes_back_from_a_folder_of_ours(golden: Any, tmp_path: Path) -> None:
    tensors, meta = golden("easyanimate_v3_transformer_size128")
    model = Transformer3DModel.from_pretrained(published_folder(tmp_path / "published", tensors, meta["config"]))
    model.save_pretrained(tmp_path / "ours")
    again = Transformer3DModel.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        assert torch.equal(again(**inputs(tensors)).sample, model(**inputs(tensors)).sample)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_full_size_weights_find_their_places(golden: Any, manifest: str) -> None:
    _, description = golden(manifest)
    with torch.device("meta"):
        model = Transformer3DModel(**published_keywords(description["config"]))
    names = apply_key_map(
        PUBLISHED_KEYS, {name: torch.empty(shape, device="meta") for name, shape in description["keys"].items()}
    )
    own = model.state_dict()
    assert names.keys() == own.keys()
    assert {k: v.shape for k, v in names.items()} == {k: v.shape for k, v in own.items()}
