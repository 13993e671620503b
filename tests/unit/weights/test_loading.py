"""Loading with nothing missing and nothing left over. Folders are tested with the models that load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from muybridge.errors import CheckpointError
from muybridge.weights.loading import load_folder, load_strictly, require_finite


def state(**changes: Any) -> dict[str, Tensor]:
    whole = {"weight": torch.ones(3, 2), "bias": torch.arange(3.0)} | changes
    return {name: value for name, value in whole.items() if value is not None}


def test_loads_and_converts() -> None:
    layer = nn.Linear(2, 3, dtype=torch.bfloat16)
    load_strictly(layer, state(), "w.ckpt")
    assert torch.equal(layer.weight, torch.ones(3, 2, dtype=torch.bfloat16))
    assert layer.bias.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": None}, r"^w.ckpt has no weights for bias\.$"),
        ({"scale": torch.ones(1)}, r"^w.ckpt has keys that the model does not have: scale\.$"),
        ({"weight": torch.ones(2, 3)}, r"shapes that do not fit: weight \(2, 3\) instead of \(3, 2\)"),
        ({"weight": torch.ones(3, 2).char()}, r"quantized without the scales .* in whole numbers: weight\.$"),
        ({"bias": torch.tensor([0.0, float("nan"), 0.0])}, r"NaN or infinite values in bias"),
        ({"bias": torch.tensor([0.0, float("inf"), 0.0])}, r"NaN or infinite values in bias"),
        ({"bias": torch.tensor([0.0, float("nan"), 0.0]).to(torch.float8_e4m3fn)}, r"infinite values in bias"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    layer = nn.Linear(2, 3)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_strictly(layer, state(**changes), "w.ckpt")
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_the_first_three_are_named_and_the_others_counted() -> None:
    bad = [(f"layer{i}", torch.tensor(float("nan"))) for i in range(5)]
    with pytest.raises(CheckpointError, match=r"in layer0, layer1, layer2 and 2 more\."):
        require_finite(bad, "w.ckpt")


def test_integers_are_finite() -> None:
    require_finite([("steps", torch.tensor([1, 2])), ("half", torch.ones(1).to(torch.float8_e5m2))], "w.ckpt")


@pytest.mark.parametrize("name", [name for name in dir(torch) if name.startswith(("float8_", "float4_"))])
def test_every_8_bit_float_can_be_looked_at(name: str) -> None:
    dtype = getattr(torch, name)
    require_finite([("one", torch.full((4,), 0x38, dtype=torch.uint8).view(dtype))], "w.ckpt")
    if name.startswith("float8_"):
        bad = torch.full((2,), 0x80 if name.endswith("fnuz") else 0xFF, dtype=torch.uint8).view(dtype)
        with pytest.raises(CheckpointError, match="infinite values in nan"):
            require_finite([("nan", bad)], "w.ckpt")


def in_half(folder: Path, name: str) -> None:
    (folder / f"{name}.safetensors").rename(folder / f"{name}.fp16.safetensors")


@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_of_diffusers_with_nothing_but_half_precision(tmp_path: Path, shards: bool) -> None:
    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    model.half().save_pretrained(tmp_path, variant="fp16", max_shard_size="4KB" if shards else "1GB")
    assert shards == (len(list(tmp_path.glob("*.fp16*.json"))) == 1)
    loaded = load_folder(AutoencoderKL.from_pretrained, tmp_path, "AutoencoderKL", {"torch_dtype": torch.float32})
    assert all(torch.equal(value, model.state_dict()[key].float()) for key, value in loaded.state_dict().items())


def test_full_precision_comes_before_half(tmp_path: Path) -> None:
    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    model.save_pretrained(tmp_path)
    model.half().save_pretrained(tmp_path, variant="fp16")
    assert load_folder(AutoencoderKL.from_pretrained, tmp_path, "AutoencoderKL", {}).dtype == torch.float32


def test_a_folder_of_transformers_with_nothing_but_half_precision(tmp_path: Path) -> None:
    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=4, patch_size=2
    )
    model = CLIPVisionModelWithProjection(config)
    model.save_pretrained(tmp_path)
    in_half(tmp_path, "model")
    name = "CLIPVisionModelWithProjection"
    loaded = load_folder(CLIPVisionModelWithProjection.from_pretrained, tmp_path, name, {"dtype": torch.float32})
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


@pytest.fixture
def vae_folder(tmp_path: Path) -> Path:
    """A folder that diffusers wrote, with a pickle instead of safetensors."""
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path, safe_serialization=False)
    return tmp_path


def load_vae(folder: Path) -> Any:
    return load_folder(AutoencoderKL.from_pretrained, folder, "AutoencoderKL", {})


def test_pickles_load_without_a_word(vae_folder: Path, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    logging = diffusers_logging.get_logger("diffusers")
    logging.addHandler(caplog.handler)
    try:
        assert sum(p.numel() for p in load_vae(vae_folder).parameters()) > 0
    finally:
        logging.removeHandler(caplog.handler)
    assert not caplog.records
    assert "error" not in "".join(capfd.readouterr())


def rename(folder: Path, ending: str) -> None:
    (folder / "diffusion_pytorch_model.bin").rename(folder / f"diffusion_pytorch_model.{ending}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "diffusion_pytorch_model.bin").write_bytes(b""), r"model\.bin is empty; copy or"),
        (lambda folder: (folder / "diffusion_pytorch_model.bin").write_bytes(b"<html>404</html>"), "is a web page"),
        (lambda folder: (folder / "diffusion_pytorch_model.bin").unlink(), "has no weights: no .safetensors or .bin"),
        (
            lambda folder: rename(folder, "safetensors"),
            r"another ending than its content: rename it so that it ends in \.bin",
        ),
        (lambda folder: (folder / "diffusion_pytorch_model.bin.index.json").write_text("{}"), "has no weight_map"),
    ],
)
def test_damaged_folders_in_our_own_words(vae_folder: Path, damage: Any, message: str) -> None:
    damage(vae_folder)
    with pytest.raises(CheckpointError, match=f"AutoencoderKL cannot be loaded from {vae_folder}: .*{message}"):
        load_vae(vae_folder)


def test_settings_that_do_not_fit_their_weights(vae_folder: Path) -> None:
    config = json.loads((vae_folder / "config.json").read_text())
    (vae_folder / "config.json").write_text(json.dumps(config | {"block_out_channels": [16]}))
    with pytest.raises(CheckpointError, match=r"do not fit: \S+ \(8.*\) instead of \(16.* and \d+ more"):
        load_vae(vae_folder)
    for change in ({"block_out_channels": 3}, {"act_fn": "nope"}):
        (vae_folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=r"config\.json has settings that are not known, or"):
            load_vae(vae_folder)
