"""LoRAs in the names of kohya's scripts for Stable Diffusion XL, beside what diffusers makes of the same file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.lora import AttachedLoras, adaptable_layers, described, match_lora, read_lora
from muybridge.errors import CheckpointError

DEPTHS = (0, 1, 3)
TEXT = 32
RESNET = ("in_layers_2", "emb_layers_1", "out_layers_3")
ATTENTION = [f"attn{i}_to_{each}" for i in (1, 2) for each in ("q", "k", "v", "out_0")]
CLIP_LAYERS = [*(f"self_attn_{each}_proj" for each in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]


def image_unet() -> UNet2DConditionModel:
    """SDXL's layout, as narrow as can be."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (32, 64, 128),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 1, 3],
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": TEXT,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    }
    return UNet2DConditionModel(**settings).eval()


def text_encoder(kind: type[Any]) -> Any:
    config = CLIPTextConfig(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    return kind(config).eval()


def unet_names() -> Iterator[str]:
    """Every linear and convolution layer, as the original program numbers its blocks."""
    yield from ("input_blocks_0_0", "time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2", "out_2")
    number = 1
    for level, depth in enumerate(DEPTHS):
        for row in range(2):
            yield from block(f"input_blocks_{number}", depth, widens=level > 0 and row == 0)
            number += 1
        if level < 2:
            yield f"input_blocks_{number}_0_op"
            number += 1
    yield from (f"middle_block_{part}_{each}" for part in (0, 2) for each in RESNET)
    yield from transformer("middle_block_1", DEPTHS[-1])
    number = 0
    for level in (2, 1, 0):
        for row in range(3):
            yield from block(f"output_blocks_{number}", DEPTHS[level], widens=True)
            if row == 2 and level > 0:
                yield f"output_blocks_{number}_2_conv"
            number += 1


def block(name: str, depth: int, widens: bool) -> Iterator[str]:
    yield from (f"{name}_0_{each}" for each in (*RESNET, *(["skip_connection"] if widens else [])))
    if depth:
        yield from transformer(f"{name}_1", depth)


def transformer(name: str, depth: int) -> Iterator[str]:
    yield from (f"{name}_{each}" for each in ("proj_in", "proj_out"))
    for index in range(depth):
        parts = [*ATTENTION, "ff_net_0_proj", "ff_net_2"]
        yield from (f"{name}_transformer_blocks_{index}_{each}" for each in parts)


def renamed_by_diffusers(keys: list[str], unet: UNet2DConditionModel) -> dict[str, str]:
    """From the U-Net's names in kohya's file to names of layers, by way of tensors that tell where they came from."""
    state = {}
    for index, key in enumerate(keys):
        state[f"{key}.lora_down.weight"] = torch.full((1, 1), float(index))
        state[f"{key}.lora_up.weight"] = torch.zeros(1, 1)
        state[f"{key}.alpha"] = torch.tensor(1.0)
    found: Any = StableDiffusionXLPipeline.lora_state_dict(state, unet_config=unet.config)
    renamed = {}
    for name, value in found[0].items():
        if re.search(r"(down|lora_A)\.weight$", name):
            layer = re.sub(r"[._]lora[._].*$", "", name.removeprefix("unet.").replace(".processor.", "."))
            renamed[keys[int(value)]] = re.sub(r"\.to_out$", ".to_out.0", layer)
    return renamed


def factors(layer: nn.Module, generator: torch.Generator, rank: int) -> tuple[Tensor, Tensor]:
    shape = layer.get_parameter("weight").shape
    down = torch.randn(rank, *shape[1:], generator=generator) * 0.05
    up = torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=generator) * 0.05
    return down, up


@pytest.fixture(scope="module")
def kohya_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file that changes every layer of the U-Net and of both text encoders, and what diffusers calls each."""
    unet, generator = image_unet(), torch.Generator().manual_seed(1)
    names = renamed_by_diffusers([f"lora_unet_{name}" for name in unet_names()], unet)
    layers = {key: unet.get_submodule(name) for key, name in names.items()}
    for prefix, encoder in (("lora_te1_", CLIPTextModel), ("lora_te2_", CLIPTextModelWithProjection)):
        found = adaptable_layers(text_encoder(encoder))
        for index in range(2):
            for each in CLIP_LAYERS:
                name = next(n for n in found if n.replace(".", "_").endswith(f"encoder_layers_{index}_{each}"))
                layers[f"{prefix}text_model_encoder_layers_{index}_{each}"] = found[name]
    state = {}
    for count, (key, layer) in enumerate(layers.items()):
        rank = 1 + count % 3
        state[f"{key}.lora_down.weight"], state[f"{key}.lora_up.weight"] = factors(layer, generator, rank)
        state[f"{key}.alpha"] = torch.tensor(1.5)  # the same for all: diffusers mixes up those that differ
    path = tmp_path_factory.mktemp("lora") / "sdxl.safetensors"
    save_file(state, path)
    return path, names


def test_every_key_finds_the_layer_that_diffusers_finds(kohya_file: tuple[Path, dict[str, str]]) -> None:
    path, names = kohya_file
    unet = UNet3DConditionModel.from_unet2d(image_unet())
    encoders = {"text_encoder": text_encoder(CLIPTextModel)}
    encoders["text_encoder_2"] = text_encoder(CLIPTextModelWithProjection)

    pairs = read_lora(path)
    found = match_lora(path, pairs, {"backbone": unet, **encoders}, "kohya")

    assert sorted(names.values()) == sorted(adaptable_layers(unet))  # all of them, each once
    assert found["backbone"].keys() == set(names.values())
    state = load_file(path)
    for key, name in names.items():
        assert torch.equal(found["backbone"][name].down, state[f"{key}.lora_down.weight"])
        assert found["backbone"][name].alpha == float(state[f"{key}.alpha"])
    for part, prefix in (("text_encoder", "lora_te1_"), ("text_encoder_2", "lora_te2_")):
        own = {pair.key: pair for pair in pairs if pair.key.startswith(prefix)}
        assert len(found[part]) == len(own) == 12
        for change in found[part].values():
            assert any(torch.equal(change.down, pair.down) for pair in own.values())
        projection = {name for name in adaptable_layers(encoders[part]) if "text_projection" in name}
        assert found[part].keys() == adaptable_layers(encoders[part]).keys() - projection


def test_the_same_file_gives_the_same_frames_in_diffusers(kohya_file: tuple[Path, dict[str, str]]) -> None:
    path, _ = kohya_file
    image, video = image_unet(), UNet3DConditionModel.from_unet2d(image_unet())
    generator = torch.Generator().manual_seed(2)
    sample = torch.randn(2, 4, 2, 8, 8, generator=generator)
    states = torch.randn(2, 5, TEXT, generator=generator)
    added = {"text_embeds": torch.randn(2, 16, generator=generator), "time_ids": torch.ones(2, 6)}
    with torch.no_grad():
        plain = video(sample, 300, states, added_cond_kwargs=added).sample
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft, about the pattern that diffusers makes
        loaded: Any = StableDiffusionXLPipeline.lora_state_dict(str(path), unet_config=image.config)
        StableDiffusionXLPipeline.load_lora_into_unet(loaded[0], network_alphas=loaded[1], unet=image)

    attached = AttachedLoras(video)
    pairs = [pair for pair in read_lora(path) if pair.part == "backbone"]
    attached.attach("a", match_lora(path, pairs, {"backbone": video}, "kohya")["backbone"])
    attached.weigh({"a": 1.0})

    with torch.no_grad():
        ours = video(sample, 300, states, added_cond_kwargs=added).sample
        for frame in range(2):
            theirs: Any = image(sample[:, :, frame], 300, states, added_cond_kwargs=added)
            assert (ours[:, :, frame] - theirs.sample).abs().max() < 1e-5 * theirs.sample.abs().max()
    assert (ours - plain).abs().max() > 0.01


def test_a_file_for_sdxl_says_so_to_another_model(kohya_file: tuple[Path, dict[str, str]]) -> None:
    path, _ = kohya_file
    with torch.device("meta"):
        other = UNet3DConditionModel()
    pairs = read_lora(path)
    with pytest.raises(CheckpointError, match=r"is a LoRA for .* and this model is Stable Diffusion 1: .* other sizes"):
        match_lora(path, pairs, {"backbone": other}, "kohya")
    assert "Stable Diffusion" in described(pairs)
