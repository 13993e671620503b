"""The layers that published files mean, at the published sizes, and what diffusers makes of the same files."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.ldm_names import ldm_names
from muybridge.checkpoints.lora import (
    AttachedLoras,
    LoraChange,
    LoraPair,
    adaptable_layers,
    described,
    match_lora,
    read_lora,
    write_lora,
)
from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion import HybridConfig, MotionAdapter

FILE = Path("file.safetensors")


@pytest.fixture(scope="module")
def sd15() -> UNet3DConditionModel:
    """At full size, without memory; with the motion modules of version 2."""
    with torch.device("meta"):
        unet = UNet3DConditionModel()
        unet.set_motion_adapter(MotionAdapter.for_sites(unet.motion_sites().values()))
    return unet


@pytest.fixture(scope="module")
def easyanimate() -> Transformer3DModel:
    with torch.device("meta"):
        transformer = Transformer3DModel()
        sites = transformer.motion_sites().values()
        transformer.set_motion_adapter(MotionAdapter.for_sites(sites, "hybrid", HybridConfig(), "easyanimate"))
    return transformer


def pair_for(key: str, part: str | None, name: str, layer: nn.Module, rank: int = 4) -> LoraPair:
    shape = layer.weight.shape
    assert isinstance(shape, torch.Size)
    down = torch.empty(rank, *shape[1:], device="meta")
    return LoraPair(key, part, name, down, torch.empty(shape[0], rank, *(1,) * (len(shape) - 2), device="meta"), None)


def test_easyanimates_training_script(easyanimate: Transformer3DModel) -> None:
    """It wraps every linear layer (the patches are a convolution of 2 x 2, and left out)."""
    layers = {name: layer for name, layer in adaptable_layers(easyanimate).items() if isinstance(layer, nn.Linear)}
    pairs = []
    for name, layer in layers.items():
        original = name.replace("attn_temporal.", "attn_temporal.temporal_transformer.")
        pairs.append(
            pair_for(f"lora_unet__{original.replace('.', '_')}", "backbone", original.replace(".", "_"), layer)
        )
    found = match_lora(FILE, pairs, {"backbone": easyanimate}, "kohya")
    assert found["backbone"].keys() == layers.keys()
    assert len(layers) == 28 * (4 + 4 + 2 + 2 + 8 + 2) + 13 + 3 + 2 + 2 + 1


def test_motion_lora_of_version_2(sd15: UNet3DConditionModel) -> None:
    pairs, wanted = [], set()
    for site in sd15.motion_sites():
        for block in (0, 1):
            for projection in ("to_q", "to_k", "to_v", "to_out"):
                key = f"{site}.temporal_transformer.transformer_blocks.0.attention_blocks.{block}.{projection}"
                own = f"{site}.transformer_blocks.0.attention_blocks.{block}.{projection}"
                own += ".0" if projection == "to_out" else ""
                wanted.add(own)
                pairs.append(pair_for(key, None, key.replace(".", "_"), sd15.get_submodule(own), 64))
    found = match_lora(FILE, pairs, {"backbone": sd15}, "official")
    assert found["backbone"].keys() == wanted
    assert sum(pair.down.numel() + pair.up.numel() for pair in pairs) == 19_333_120  # what the published files hold
    assert described(pairs) == "AnimateDiff's motion modules"


def test_the_domain_adapter(sd15: UNet3DConditionModel) -> None:
    pattern = r"attentions\.\d\.transformer_blocks\.0\.attn[12]\.to_(q|k|v|out\.0)$"
    layers = {name: layer for name, layer in adaptable_layers(sd15).items() if re.search(pattern, name)}
    pairs = [
        pair_for(name, None, name.replace("to_out.0", "to_out").replace(".", "_"), layer, 128)
        for name, layer in layers.items()
    ]
    assert match_lora(FILE, pairs, {"backbone": sd15}, "kohya")["backbone"].keys() == layers.keys()
    assert len(pairs) == 128
    assert described(pairs) == "Stable Diffusion 1"


def text_encoders() -> tuple[CLIPTextModel, T5EncoderModel]:
    with torch.device("meta"):
        clip = CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
        t5 = T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
        return CLIPTextModel(clip), T5EncoderModel(t5)


def test_text_encoders(sd15: UNet3DConditionModel) -> None:
    clip, t5 = text_encoders()
    projections = [f"self_attn_{p}_proj" for p in ("q", "k", "v", "out")] + ["mlp_fc1", "mlp_fc2"]
    older = ["self_attn_to_q", "self_attn_to_k", "self_attn_to_v", "self_attn_to_out", "mlp_fc1", "mlp_fc2"]
    for names, prefix in ((projections, "text_model_"), (older, "text_model_"), (projections, "")):
        pairs = []
        for layer in (0, 1):
            for name, own in zip(names, projections, strict=True):
                module = clip.get_submodule(
                    f"encoder.layers.{layer}.{own.replace('attn_', 'attn.').replace('mlp_', 'mlp.')}"
                )
                key = f"{prefix}encoder_layers_{layer}_{name}"
                pairs.append(pair_for(key, "text_encoder", key, module))
        found = match_lora(FILE, pairs, {"backbone": sd15, "text_encoder": clip}, "kohya")
        assert found["text_encoder"].keys() == adaptable_layers(clip).keys()
    pairs = [
        pair_for(name, "text_encoder", name.replace(".", "_"), layer) for name, layer in adaptable_layers(t5).items()
    ]
    found = match_lora(FILE, pairs, {"backbone": sd15, "text_encoder": t5}, "kohya")
    assert found["text_encoder"].keys() == adaptable_layers(t5).keys()


def test_a_part_that_is_not_there(sd15: UNet3DConditionModel) -> None:
    pairs = [pair_for("lora_unet_conv_in", "backbone", "conv_in", sd15.conv_in)]
    pairs.append(pair_for("lora_te2_x", "text_encoder_2", "text_projection", nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match="nothing was loaded: lora_te2_x"):
        match_lora(FILE, pairs, {"backbone": sd15}, "kohya")
    with pytest.raises(CheckpointError, match="two changes for one layer: lora_unet_conv_in and lora_unet_conv_in"):
        match_lora(FILE, pairs[:1] * 2, {"backbone": sd15}, "kohya")


def test_factors_of_the_other_number_of_axes(sd15: UNet3DConditionModel) -> None:
    """Programs write 1 x 1 convolutions with two axes, and linear layers with four."""
    block = "down_blocks_0_attentions_0"
    flat = LoraPair("a", "backbone", f"{block}_proj_in", torch.ones(4, 320), torch.ones(320, 4), None)
    deep = LoraPair(
        "b",
        "backbone",
        f"{block}_transformer_blocks_0_attn1_to_q",
        torch.ones(4, 320, 1, 1),
        torch.ones(320, 4, 1, 1),
        None,
    )
    found = match_lora(FILE, [flat, deep], {"backbone": sd15}, "kohya")["backbone"]
    assert [tuple(change.down.shape) for change in found.values()] == [(4, 320, 1, 1), (4, 320)]
    assert [tuple(change.up.shape) for change in found.values()] == [(320, 4, 1, 1), (320, 4)]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("double_blocks_0_img_attn_qkv", "FLUX"),
        ("single_transformer_blocks_0_proj_out", "FLUX"),
        ("transformer_blocks_0_attn_add_q_proj", "Stable Diffusion 3"),
        ("blocks_0_self_attn_q", "Wan"),
        ("encoder_layers_0_mlp_fc1", "a CLIP text encoder"),
        ("encoder_block_0_layer_0_SelfAttention_q", "a T5 text encoder"),
        ("input_blocks_4_1_transformer_blocks_0_attn2_to_k", "Stable Diffusion XL"),
        ("foo", "a network that is not known here"),
    ],
)
def test_what_a_file_is_for(name: str, family: str, easyanimate: Transformer3DModel) -> None:
    pair = LoraPair(name, "backbone", name, torch.ones(2, 2048), torch.ones(8, 2), None)
    assert described([pair]) == family
    with pytest.raises(CheckpointError, match=rf"LoRA for {family}: none of its 1 layers is here \(first: {name}\)"):
        match_lora(FILE, [pair], {"backbone": easyanimate}, "kohya")


def test_names_of_the_original_stable_diffusion() -> None:
    """Against the table that every conversion program has for Stable Diffusion 1.5."""
    for name, original in {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_2": "time_embed.2",
        "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
        "down_blocks.0.attentions.1.proj_in": "input_blocks.2.1.proj_in",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
        "down_blocks.2.attentions.1.transformer_blocks.0.norm1": "input_blocks.8.1.transformer_blocks.0.norm1",
        "down_blocks.3.resnets.1.time_emb_proj": "input_blocks.11.0.emb_layers.1",
        "mid_block.resnets.0.conv2": "middle_block.0.out_layers.3",
        "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
        "mid_block.resnets.1.conv1": "middle_block.2.in_layers.2",
        "up_blocks.0.resnets.2.conv1": "output_blocks.2.0.in_layers.2",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
        "up_blocks.1.attentions.0.proj_in": "output_blocks.3.1.proj_in",
        "up_blocks.2.upsamplers.0.conv": "output_blocks.8.2.conv",
        "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2": "output_blocks.11.1.transformer_blocks.0.ff.net.2",
        "conv_out": "out.2",
    }.items():
        assert original in ldm_names(name, layers_per_block=2)
    assert ldm_names("down_blocks.0.motion_modules.0.proj_in", 2) == []


def tiny_image_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
    ).eval()


def random_changes(network: nn.Module, pattern: str) -> dict[str, LoraChange]:
    random = torch.Generator().manual_seed(0)
    changes = {}
    for count, (name, layer) in enumerate(adaptable_layers(network).items()):
        if not re.search(pattern, name):
            continue
        rank, shape = 2 + count % 3, layer.weight.shape
        down = torch.randn(rank, *shape[1:], generator=random) * 0.1
        up = torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=random) * 0.1
        changes[name] = LoraChange(down, up, alpha=0.5 + count % 4)
    return changes


def test_diffusers_reads_what_is_written_here(tmp_path: Path) -> None:
    """Ranks and alphas that differ from layer to layer, linear and convolution, give the same frame in both."""
    image = tiny_image_unet()
    video = UNet3DConditionModel.from_unet2d(tiny_image_unet())
    changes = random_changes(video, r"attn|conv1|proj_in|downsamplers")
    assert len(changes) > 20
    write_lora(tmp_path / "a.safetensors", {"backbone": changes}, "unet", "diffusers")
    attached = AttachedLoras(video)
    attached.attach("a", changes)
    attached.weigh({"a": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft, about the pattern that diffusers makes
        image.load_lora_adapter(str(tmp_path), weight_name="a.safetensors", prefix="unet")
    sample, text = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 5, 16)
    with torch.no_grad():
        ours = video(sample, 300, text).sample
        for frame in range(3):
            theirs: Any = image(sample[:, :, frame], 300, text)
            assert (ours[:, :, frame] - theirs.sample).abs().max() < 1e-5 * theirs.sample.abs().max()
        attached.remove(["a"])
        assert (video(sample, 300, text).sample - ours).abs().max() > 0.01


def test_kohya_files_have_the_original_names(tmp_path: Path) -> None:
    names = ("transformer_blocks.3.attn_temporal.transformer_blocks.0.attention_blocks.1.to_q", "long_connect_fc.12")

    def change() -> LoraChange:
        return LoraChange(torch.ones(2, 1152), torch.ones(1152, 2), 1.0)

    changes = {"backbone": {name: change() for name in names}, "text_encoder": {"encoder.layers.0.mlp.fc1": change()}}
    keys = load_file(write_lora(tmp_path / "a.safetensors", changes, "transformer", "kohya")).keys()
    assert {key.split(".")[0] for key in keys} == {
        "lora_unet__transformer_blocks_3_attn_temporal_temporal_transformer_transformer_blocks_0_attention_blocks_1_to_q",
        "lora_unet__long_connect_fc_12",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
    }
    assert {key.partition(".")[2] for key in keys} == {"lora_down.weight", "lora_up.weight", "alpha"}


def test_weights_that_are_not_here(sd15: UNet3DConditionModel) -> None:
    change = LoraChange(torch.ones(2, 4, 3, 3), torch.ones(320, 2, 1, 1), 2.0)
    with pytest.raises(ConfigError, match="before enable_sequential_cpu_offload"):
        AttachedLoras(sd15).attach("a", {"conv_in": change})


def test_quantised_weights_are_not_fused() -> None:
    network = nn.Sequential(nn.Linear(4, 4)).requires_grad_(False)
    attached = AttachedLoras(network)
    attached.attach("a", {"0": LoraChange(torch.ones(2, 4), torch.ones(4, 2), 2.0)})
    attached.weigh({"a": 1.0})
    weight = attached._places[0].base.weight.data
    attached._places[0].base.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ConfigError, match="quantised or not loaded"):
        attached.fuse()
    assert not attached.is_fused


def test_similar_names_are_not_mixed_up() -> None:
    """A name that ends like another, and one that a dot would match anything in."""
    network = nn.ModuleDict({"proj": nn.Linear(4, 4), "block": nn.ModuleDict({"proj": nn.Linear(4, 4)})})
    attached = AttachedLoras(network)
    attached.attach("a", {"proj": LoraChange(torch.ones(1, 4), torch.ones(4, 1), 1.0)})
    assert list(attached.changes("a")) == ["proj"]
    attached.attach("b", {"block.proj": LoraChange(torch.ones(3, 4), torch.ones(4, 3), 6.0)})
    assert list(attached.changes("b")) == ["block.proj"]
    assert attached.changes("b")["block.proj"].alpha == 6.0


def test_reading_what_was_written(tmp_path: Path) -> None:
    network = UNet3DConditionModel.from_unet2d(tiny_image_unet())
    changes = random_changes(network, "attn1|conv2")
    for dialect in ("diffusers", "kohya"):
        path = write_lora(tmp_path / f"{dialect}.safetensors", {"backbone": changes}, "unet", dialect)
        found = match_lora(path, read_lora(path), {"backbone": network}, "kohya")["backbone"]
        assert found.keys() == changes.keys()
        for name, change in changes.items():
            assert found[name].alpha == change.alpha
            assert torch.equal(found[name].down, change.down)
            assert torch.equal(found[name].up, change.up)


def test_rank_that_is_alpha_needs_no_settings(tmp_path: Path) -> None:
    changes: dict[str, dict[str, LoraChange]] = {
        "backbone": {"conv_in": LoraChange(torch.ones(2, 4, 3, 3), torch.ones(8, 2, 1, 1), 2.0)}
    }
    path = write_lora(tmp_path / "a.safetensors", changes, "unet", "diffusers")
    assert b"lora_adapter_metadata" not in path.read_bytes()
    tensors: dict[str, Tensor] = load_file(path)
    save_file(tensors, tmp_path / "b.safetensors")
    assert read_lora(tmp_path / "b.safetensors")[0].alpha is None
