"""Folders of the video VAE: published, left by training, and saved here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from muybridge.errors import CheckpointError, ConfigError
from muybridge.vae import AutoencoderKLMagvit

SETTINGS: dict[str, Any] = {
    "block_out_channels": [8, 8],
    "down_block_types": ["SpatialTemporalDownBlock3D"] * 2,
    "up_block_types": ["SpatialTemporalUpBlock3D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "slice_compression_vae": True,
    "mini_batch_encoder": 4,
    "mini_batch_decoder": 2,
    "scaling_factor": 0.25,
}
LEFTOVERS: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.28.0",
    "act_fn": "silu",
    "mid_block_attention_type": "3d",
    "force_upcast": True,
    "sample_size": 256,
    "decay": 0.9999,
}
STANDARD = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLMagvit:
    torch.manual_seed(0)
    return AutoencoderKLMagvit(**SETTINGS).eval()


def write(folder: Path, state: Any, name: str = STANDARD, **config: Any) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps({**SETTINGS, **LEFTOVERS, **config}))
    if name.endswith(".safetensors"):
        save_file(state, folder / name)
    else:
        torch.save(state, folder / name)
    return folder


def assert_same(found: AutoencoderKLMagvit, expected: AutoencoderKLMagvit) -> None:
    own, other = found.state_dict(), expected.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert not found.training


@pytest.mark.parametrize("limit", ["10GB", "30KB"])
def test_saving_and_loading(vae: AutoencoderKLMagvit, tmp_path: Path, limit: str) -> None:
    vae.save_pretrained(tmp_path, max_shard_size=limit)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (limit == "30KB")
    found = AutoencoderKLMagvit.from_pretrained(tmp_path)
    assert_same(found, vae)
    for name in (*SETTINGS, "tile_sample_min_size", "use_tiling"):
        assert found.config[name] == vae.config[name] or tuple(found.config[name]) == tuple(vae.config[name])
    assert found.dtype == torch.float32
    assert "fixed_settings" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    "name", [STANDARD, "diffusion_pytorch_model.bin", "slice_vae.ckpt", "anything.safetensors", "model.pth"]
)
def test_published_and_trained_files(vae: AutoencoderKLMagvit, tmp_path: Path, name: str) -> None:
    state: dict[str, Any] = {**vae.state_dict(), "loss.discriminator.main.0.weight": torch.ones(2)}
    wrapped = state if name.endswith(".safetensors") else {"state_dict": state, "epoch": 3}
    folder = write(tmp_path / "vae", wrapped, name)
    assert_same(AutoencoderKLMagvit.from_pretrained(tmp_path, subfolder="vae", low_cpu_mem_usage=True), vae)
    assert AutoencoderKLMagvit.from_pretrained(folder).config["scaling_factor"] == 0.25


def test_the_dtype_and_the_variant_asked_for(vae: AutoencoderKLMagvit, tmp_path: Path) -> None:
    state = vae.state_dict()
    folder = write(tmp_path, state)
    halved: dict[str, Tensor] = {name: (tensor / 2).half() for name, tensor in state.items()}
    write(tmp_path, halved, "diffusion_pytorch_model.fp16.safetensors")
    found = AutoencoderKLMagvit.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16}
    assert torch.equal(found.quant_conv.weight, state["quant_conv.weight"].bfloat16())
    variant = AutoencoderKLMagvit.from_pretrained(folder, variant="fp16")
    assert {p.dtype for p in variant.parameters()} == {torch.float32}
    assert torch.equal(variant.quant_conv.weight, halved["quant_conv.weight"].float())


def test_loading_leaves_the_random_numbers_alone(vae: AutoencoderKLMagvit, tmp_path: Path) -> None:
    folder = write(tmp_path, vae.state_dict())
    before = torch.get_rng_state()
    AutoencoderKLMagvit.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_do_not_fit_are_refused(vae: AutoencoderKLMagvit, tmp_path: Path) -> None:
    state = vae.state_dict()
    missing = {name: tensor for name, tensor in state.items() if name != "quant_conv.bias"}
    damaged = {**state, "quant_conv.bias": torch.full((8,), float("nan"))}
    cases = [
        (missing, "no weights for quant_conv.bias"),
        ({**state, "extra": torch.ones(1)}, "does not have: extra"),
        ({**state, "quant_conv.bias": torch.ones(7)}, "shapes that do not fit"),
        (damaged, "NaN or infinite values in quant_conv.bias"),
    ]
    for content, message in cases:
        with pytest.raises(CheckpointError, match=message):
            AutoencoderKLMagvit.from_pretrained(write(tmp_path, content))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "AutoencoderKLWan"}, "holds a AutoencoderKLWan"),
        ({"down_block_types": ["DownEncoderBlock2D"] * 2}, "does not describe.*DownEncoderBlock2D"),
        ({"act_fn": "relu"}, "does not describe.*act_fn='relu'"),
    ],
)
def test_other_models_are_refused(
    vae: AutoencoderKLMagvit, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        AutoencoderKLMagvit.from_pretrained(write(tmp_path, vae.state_dict(), **config))


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../elsewhere.safetensors", "names files outside its folder; it is refused"),
        ("gone.safetensors", r"of the shards that .* names gone\.safetensors is missing"),
    ],
)
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_an_index_names_files_of_its_folder_alone(
    vae: AutoencoderKLMagvit, tmp_path: Path, shard: str, message: str, variant: str | None
) -> None:
    folder = write(tmp_path / "vae", vae.state_dict(), "one.safetensors")
    (folder / "one.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = f"{STANDARD}.index.{variant}.json" if variant else f"{STANDARD}.index.json"
    (folder / index).write_text(json.dumps({"weight_map": dict.fromkeys(vae.state_dict(), shard)}))
    with pytest.raises(CheckpointError, match=message):
        AutoencoderKLMagvit.from_pretrained(folder, variant=variant)


def test_folders_that_are_not_whole_are_refused(vae: AutoencoderKLMagvit, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        AutoencoderKLMagvit.from_pretrained(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="no folder"):
        AutoencoderKLMagvit.from_pretrained(None)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        AutoencoderKLMagvit.from_pretrained(tmp_path)
    folder = write(tmp_path, vae.state_dict(), "one.safetensors")
    (folder / "two.safetensors").write_bytes((folder / "one.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"one weight file.*holds one\.safetensors, two\.safetensors"):
        AutoencoderKLMagvit.from_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match="holds none"):
        AutoencoderKLMagvit.from_pretrained(folder)
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"cannot be read|holds a list"):
            AutoencoderKLMagvit.from_pretrained(folder)


def test_options_without_effect_are_refused(vae: AutoencoderKLMagvit, tmp_path: Path) -> None:
    folder = write(tmp_path, vae.state_dict())
    AutoencoderKLMagvit.from_pretrained(folder, device_map=None, use_safetensors=True)
    with pytest.raises(ConfigError, match="no option device_map"):
        AutoencoderKLMagvit.from_pretrained(folder, device_map="auto")


def test_the_original_names_are_the_saved_ones(vae: AutoencoderKLMagvit, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path)
    names = load_file(tmp_path / STANDARD).keys()
    assert {
        "encoder.down_blocks.0.downsampler.conv.weight",
        "encoder.mid_block.attentions.0.to_out.bias",
        "decoder.up_blocks.0.upsampler.conv.weight",
        "decoder.up_blocks.1.convs.1.norm2.weight",
        "post_quant_conv.weight",
    } <= names
