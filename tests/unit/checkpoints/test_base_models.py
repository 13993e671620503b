"""Image models in one file: tiny random networks, written in the names in which such files are shared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from muybridge.checkpoints.base_models import BaseModel, read_base_model
from muybridge.checkpoints.convert import Conversion, convert_weights
from muybridge.checkpoints.image_layouts import unified_unet
from muybridge.checkpoints.motion_export import write_motion
from muybridge.errors import CheckpointError, ConfigError, OutputError
from muybridge.pipelines import AnimateDiffPipeline, load_pipeline
from muybridge.service.inspection import inspect_path

SD15: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 64,
    "attention_head_dim": 8,
}
SDXL: dict[str, Any] = {
    "block_out_channels": (64, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 128,
    "attention_head_dim": (1, 1, 2),
    "transformer_layers_per_block": (1, 1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}
State = dict[str, Tensor]


def fill(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            # Multiples of 1/64, so that half precision changes nothing.
            parameter.copy_(torch.randint(-16, 17, parameter.shape, generator=generator) / 64)


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_unet_key(key: str, layers: int, attention_up: tuple[bool, ...]) -> str:
    for theirs, ours in OUTER.items():
        if key.startswith(theirs + "."):
            return key.replace(theirs, ours, 1)
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
    if match is None:
        kind, index, rest = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", key).groups()  # type: ignore
        number = 1 if kind == "attentions" else 2 * int(index)
        return f"middle_block.{number}.{in_resnet(rest) if kind == 'resnets' else rest}"
    side, level, kind, row, rest = match.group(1), int(match.group(2)), match.group(3), int(match.group(4)), match[5]
    if side == "down":
        number = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else row)
        names = {"resnets": f"0.{in_resnet(rest)}", "attentions": f"1.{rest}", "downsamplers": f"0.op.{rest[5:]}"}
        return f"input_blocks.{number}.{names[kind]}"
    number = level * (layers + 1) + (layers if kind == "upsamplers" else row)
    sampler = f"{2 if attention_up[level] else 1}.{rest}"
    names = {"resnets": f"0.{in_resnet(rest)}", "attentions": f"1.{rest}", "upsamplers": sampler}
    return f"output_blocks.{number}.{names[kind]}"


def in_resnet(rest: str) -> str:
    name, _, last = rest.rpartition(".")
    return f"{RESNET.get(name, '')}.{last}"


def ldm_vae_key(key: str, levels: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm")
    key = re.sub(r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1", key)
    key = key.replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
    key = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)


def ldm_vae(vae: AutoencoderKL) -> State:
    state = {ldm_vae_key(key, 3): value for key, value in vae.state_dict().items()}
    wide = re.compile(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$")
    return {key: value[:, :, None, None] if wide.search(key) else value for key, value in state.items()}


def ldm_unet(unet: UNet2DConditionModel) -> State:
    attention = tuple(name.startswith("CrossAttn") for name in unet.config["up_block_types"])
    layers = unet.config["layers_per_block"]
    return {ldm_unet_key(key, layers, attention): value for key, value in unet.state_dict().items()}


def open_clip(encoder: CLIPTextModelWithProjection) -> State:
    state = dict(encoder.state_dict())
    found = {
        "positional_embedding": state.pop("text_model.embeddings.position_embedding.weight"),
        "token_embedding.weight": state.pop("text_model.embeddings.token_embedding.weight"),
        "text_projection": state.pop("text_projection.weight").T,
        "logit_scale": torch.zeros(()),
    }
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for key, value in state.items():
        name = key.removeprefix("text_model.").replace("final_layer_norm", "ln_final")
        name = name.replace("encoder.layers.", "transformer.resblocks.").replace("self_attn", "attn")
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        found[name] = value
    for kind in ("weight", "bias"):
        for layer in range(2):
            stem = f"transformer.resblocks.{layer}.attn."
            found[f"{stem}in_proj_{kind}"] = torch.cat([found.pop(f"{stem}{q}_proj.{kind}") for q in "qkv"])
    return found


def text_config(width: int, **settings: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        max_position_embeddings=24,
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
        **settings,
    )


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.fixture(scope="module")
def parts() -> dict[str, nn.Module]:
    """The networks of both families."""
    vae: dict[str, Any] = {
        "block_out_channels": (32, 32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 1,
        "latent_channels": 4,
    }
    made: dict[str, nn.Module] = {
        "sd15": UNet2DConditionModel(**SD15),
        "sdxl": UNet2DConditionModel(**SDXL),
        "vae": AutoencoderKL(**vae),
        "clip": CLIPTextModel(text_config(64)),
        "open_clip": CLIPTextModelWithProjection(text_config(64, projection_dim=32, hidden_act="gelu")),
    }
    for seed, module in enumerate(made.values()):
        fill(module.eval(), seed)
    return made


@pytest.fixture(scope="module")
def sd15(parts: dict[str, Any]) -> State:
    clip = {f"text_model.{key.removeprefix('text_model.')}": v for key, v in parts["clip"].state_dict().items()}
    clip["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    return (
        prefixed("model.diffusion_model.", ldm_unet(parts["sd15"]))
        | prefixed("first_stage_model.", ldm_vae(parts["vae"]))
        | prefixed("cond_stage_model.transformer.", clip)
        | {"betas": torch.ones(3), "alphas_cumprod": torch.ones(3)}
    )


@pytest.fixture(scope="module")
def sdxl(parts: dict[str, Any]) -> State:
    clip = {f"text_model.{key.removeprefix('text_model.')}": v for key, v in parts["clip"].state_dict().items()}
    return (
        prefixed("model.diffusion_model.", ldm_unet(parts["sdxl"]))
        | prefixed("first_stage_model.", ldm_vae(parts["vae"]))
        | prefixed("conditioner.embedders.0.transformer.", clip)
        | prefixed("conditioner.embedders.1.model.", open_clip(parts["open_clip"]))
    )


def save(state: Mapping[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save({"epoch": 1, "state_dict": dict(state)}, path)
    return path


def same(found: nn.Module | None, expected: nn.Module, dtype: torch.dtype = torch.float32) -> bool:
    assert found is not None
    states = found.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert {value.dtype for value in states[0].values()} == {dtype}
    return all(torch.equal(value.float(), states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_stable_diffusion_15(
    parts: dict[str, Any], sd15: State, tmp_path: Path, suffix: str, stored: torch.dtype
) -> None:
    state = {key: value.to(stored) if value.is_floating_point() else value for key, value in sd15.items()}
    found = read_base_model(save(state, tmp_path / f"model{suffix}"))
    assert found.variant == "base-sd15"
    assert same(found.unet, parts["sd15"])
    assert same(found.vae, parts["vae"])
    assert same(found.text_encoder, parts["clip"])
    assert found.text_encoder_2 is None
    assert set(found.components()) == {"unet", "vae", "text_encoder"}
    config = found.unet.config
    assert {name: tuple(config[name]) for name in ("block_out_channels", "down_block_types", "up_block_types")} == {
        name: SD15[name] for name in ("block_out_channels", "down_block_types", "up_block_types")
    }
    assert (config["attention_head_dim"], config["sample_size"]) == (8, 64)


def test_stable_diffusion_xl(parts: dict[str, Any], sdxl: State, tmp_path: Path) -> None:
    found = read_base_model(save(sdxl, tmp_path / "model.safetensors"), dtype=torch.bfloat16)
    assert found.variant == "base-sdxl"
    assert same(found.unet, parts["sdxl"], torch.bfloat16)
    assert same(found.text_encoder, parts["clip"], torch.bfloat16)
    assert same(found.text_encoder_2, parts["open_clip"], torch.bfloat16)
    assert same(found.vae, parts["vae"], torch.float32)
    assert found.vae is not None
    assert found.vae.config["scaling_factor"] == 0.13025
    assert found.vae.config["force_upcast"]
    assert found.unet.config["addition_time_embed_dim"] == 8
    assert list(found.unet.config["transformer_layers_per_block"])[-1] == 2


@torch.no_grad()
def test_the_networks_give_the_same_numbers(parts: dict[str, Any], sdxl: State, tmp_path: Path) -> None:
    found: BaseModel = read_base_model(save(sdxl, tmp_path / "model.safetensors"))
    generator = torch.Generator().manual_seed(0)
    sample, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 128, generator=generator)
    added = {"text_embeds": torch.randn(1, 32, generator=generator), "time_ids": torch.ones(1, 6)}
    expected = parts["sdxl"](sample, 500, text, added_cond_kwargs=added).sample
    got = found.unet(sample[:, :, None], 500, text, added_cond_kwargs=added).sample[:, :, 0]
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    tokens = torch.tensor([[98, 4, 5, 99, 99]])
    for encoder, name in ((found.text_encoder, "clip"), (found.text_encoder_2, "open_clip")):
        assert encoder is not None
        assert torch.equal(encoder(tokens)[0], parts[name](tokens)[0])


@pytest.mark.parametrize("lacking", ["first_stage_model.", "cond_stage_model."])
def test_a_file_without_one_of_the_parts(sd15: State, tmp_path: Path, lacking: str) -> None:
    state = {key: value for key, value in sd15.items() if not key.startswith(lacking)}
    found = read_base_model(save(state, tmp_path / "model.safetensors"))
    assert set(found.components()) == {"unet", "vae", "text_encoder"} - {
        {"first_stage_model.": "vae", "cond_stage_model.": "text_encoder"}[lacking]
    }


def test_averaged_weights(parts: dict[str, Any], sd15: State, tmp_path: Path) -> None:
    prefix = "model.diffusion_model."
    averaged = {
        f"model_ema.{key.removeprefix('model.').replace('.', '')}": value + 1
        for key, value in sd15.items()
        if key.startswith(prefix)
    }
    path = save(sd15 | averaged, tmp_path / "model.ckpt")
    assert same(read_base_model(path).unet, parts["sd15"])
    found = read_base_model(path, averaged=True).unet.state_dict()
    assert all(torch.equal(found[key], value + 1) for key, value in parts["sd15"].state_dict().items())
    with pytest.raises(ConfigError, match="no averaged"):
        read_base_model(save(sd15, tmp_path / "plain.ckpt"), averaged=True)


def replaced(key: str, value: Tensor) -> Callable[[State], State]:
    return lambda state: state | {key: value}


def without(key: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name != key}


UNET = "model.diffusion_model."


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (replaced(UNET + "input_blocks.0.0.weight", torch.zeros(32, 9, 3, 3)), "inpainting"),
        (without(UNET + "input_blocks.1.0.in_layers.2.weight"), "incomplete.*in_layers.2.weight is missing"),
        (without(UNET + "output_blocks.3.0.in_layers.2.bias"), "has no weights for up_blocks.1.resnets.0.conv1.bias"),
        (without("first_stage_model.decoder.conv_out.bias"), "has no weights for decoder.conv_out.bias"),
        (replaced(UNET + "out.2.bias", torch.full((4,), torch.nan)), "NaN or infinite values in conv_out.bias"),
        (replaced("cond_stage_model.model.token_embedding.weight", torch.zeros(2, 2)), "is base-sd2"),
        (lambda _state: {"x.y": torch.zeros(1)}, "is unknown"),
    ],
)
def test_what_is_refused(sd15: State, tmp_path: Path, damage: Callable[[State], State], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        read_base_model(save(damage(sd15), tmp_path / "model.ckpt"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_video_from_a_single_file(
    parts: dict[str, Any], sd15: State, saved_pipeline: Path, make_adapter: Callable[..., Any], tmp_path: Path
) -> None:
    motion = write_motion(make_adapter(3, widths=(32, 64, 64)), tmp_path / "motion.ckpt", "original")
    small = {key: value * 0.1 if value.is_floating_point() else value for key, value in sd15.items()}
    file = save({k: v for k, v in small.items() if not k.startswith("cond_stage_model.")}, tmp_path / "noclip.ckpt")
    with pytest.raises(CheckpointError, match=r"no text_encoder and no tokenizer.*parts_from"):
        load_pipeline(file, motion_adapter=motion, parts_from=tmp_path / "nowhere")
    file = save(small, tmp_path / "model.safetensors")
    pipeline = load_pipeline(file, motion_adapter=motion, parts_from=saved_pipeline)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline, AnimateDiffPipeline)
    assert pipeline.unet.motion_adapter is not None
    assert set(pipeline.unet.motion_adapter.sites) == {s for s in pipeline.unet.motion_sites() if "mid_block" not in s}
    assert len(pipeline.tokenizer) < 100
    video = pipeline("a red circle", num_frames=2, height=32, width=32, num_inference_steps=1, seed=0)
    assert (len(video), video.request["model"]["model"]) == (2, str(file))
    assert tuple(pipeline.vae.config["block_out_channels"]) == parts["vae"].config["block_out_channels"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_video_from_a_single_file_of_stable_diffusion_xl(
    sdxl: State, saved_pipeline: Path, sdxl_folder: Path, make_adapter: Callable[..., Any], tmp_path: Path
) -> None:
    motion = write_motion(make_adapter(3, widths=(64, 64, 128)), tmp_path / "motion.ckpt", "original")
    file = save({key: value * 0.1 for key, value in sdxl.items()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no tokenizer and no tokenizer_2, which.*folder of Stable Diffusion XL"):
        load_pipeline(file, motion_adapter=motion, parts_from=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no tokenizer_2, which .*model.safetensors lacks"):
        load_pipeline(file, motion_adapter=motion, parts_from=saved_pipeline)
    pipeline = load_pipeline(file, motion_adapter=motion, parts_from=sdxl_folder / "base")
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline, AnimateDiffPipeline)
    assert pipeline.is_sdxl
    assert pipeline.scheduler.config["beta_end"] == 0.02
    assert pipeline.tokenizer.pad_token_id != pipeline.tokenizer_2.pad_token_id
    assert pipeline.text_encoder_2.config.projection_dim == 32
    video = pipeline("a red circle", num_frames=2, height=32, width=32, num_inference_steps=1, seed=0)
    assert (len(video), video.request["model"]["model"]) == (2, str(file))
    lacking = {key: value for key, value in sdxl.items() if not key.startswith("conditioner.embedders.1.")}
    with pytest.raises(ConfigError, match="together 80; this U-Net takes 128"):  # whose encoder is another one
        load_pipeline(save(lacking, tmp_path / "half.ckpt"), motion_adapter=motion, parts_from=sdxl_folder / "base")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_becomes_a_folder(
    parts: dict[str, Any], sd15: State, saved_pipeline: Path, tmp_path: Path, suffix: str
) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in sd15.items()}
    file = save(half, tmp_path / f"model{suffix}")

    done = convert_weights(file, tmp_path / "folder", "diffusers", parts_from=saved_pipeline)

    networks = {"unet": "sd15", "vae": "vae", "text_encoder": "clip"}
    count = sum(len(parts[name].state_dict()) for name in networks.values())
    assert done == Conversion(tmp_path / "folder", "diffusers", "base-sd15", None, count)
    theirs: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "folder", dtype=torch.float16, safety_checker=None)
    for name, part in networks.items():
        assert same(getattr(theirs, name), parts[part], torch.float16)
    assert theirs.scheduler.config["beta_schedule"] == "scaled_linear"
    assert len(theirs.tokenizer) < 100
    stored = load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert inspect_path(tmp_path / "folder")["variant"] == "base-sd15"
    with pytest.raises(CheckpointError, match="is a StableDiffusionPipeline; supported"):
        load_pipeline(tmp_path / "folder")


def test_what_cannot_become_a_folder(sd15: State, sdxl: State, saved_pipeline: Path, tmp_path: Path) -> None:
    file = save(sd15, tmp_path / "model.safetensors")
    large = save(sdxl, tmp_path / "xl.safetensors")
    with pytest.raises(ConfigError, match="can be written for diffusers, no more"):
        convert_weights(file, tmp_path / "a.safetensors", "original", parts_from=saved_pipeline)
    with pytest.raises(ConfigError, match="motion_variant is about motion modules; leave it out"):
        convert_weights(file, tmp_path / "a", "diffusers", parts_from=saved_pipeline, variant="animatelcm")
    for other in (file, saved_pipeline / "motion_adapter"):
        with pytest.raises(ConfigError, match="num_heads is about the file of a motion module"):
            convert_weights(other, tmp_path / "a", "diffusers", num_heads=8)
    with pytest.raises(CheckpointError, match=r"is base-sdxl; only Stable Diffusion 1\.x"):
        convert_weights(large, tmp_path / "a", "diffusers", parts_from=saved_pipeline)
    with pytest.raises(CheckpointError, match=r"has no tokenizer, which .* does not give it"):
        convert_weights(file, tmp_path / "a", "diffusers", parts_from=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="parts_from goes with an image model"):
        convert_weights(saved_pipeline / "motion_adapter", tmp_path / "a", "muybridge", parts_from=saved_pipeline)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, large.name}
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="there already"):
        convert_weights(file, tmp_path / "a", "diffusers", parts_from=saved_pipeline)


def test_what_cannot_become_a_folder_is_refused_before_its_networks_are_built(sdxl: State, tmp_path: Path) -> None:
    damaged = {key: value for key, value in sdxl.items() if not key.endswith("input_blocks.0.0.weight")}
    file = save(damaged, tmp_path / "xl.safetensors")
    with pytest.raises(CheckpointError, match=r"is base-sdxl; only Stable Diffusion 1\.x"):
        convert_weights(file, tmp_path / "a", "diffusers")
    with pytest.raises(OutputError, match=r"xl\.safetensors is there already"):
        convert_weights(tmp_path / "nothing.safetensors", file, "diffusers")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_file_in_several_precisions_keeps_them(
    parts: dict[str, Any], sd15: State, saved_pipeline: Path, tmp_path: Path
) -> None:
    """The U-Net halved by its publisher, the VAE not, and written by a parallel trainer."""
    third = {key: value / 3 for key, value in sd15.items() if key.startswith("first_stage_model.")}
    unet = {key: value.half() for key, value in sd15.items() if key.startswith(UNET)}
    mixed = unet[UNET + "out.2.bias"] = unet[UNET + "out.2.bias"].float() + 1e-6  # which half precision does not hold
    file = save(prefixed("module.", sd15 | third | unet), tmp_path / "model.ckpt")

    convert_weights(file, tmp_path / "folder", "diffusers", parts_from=saved_pipeline)

    vae = load_file(tmp_path / "folder" / "vae" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in vae.values()} == {torch.float32}
    assert all(torch.equal(vae[key], value / 3) for key, value in parts["vae"].state_dict().items())
    written = load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(written["conv_out.bias"], mixed)
    assert {value.dtype for key, value in written.items() if key != "conv_out.bias"} == {torch.float16}

    convert_weights(file, tmp_path / "half", "diffusers", parts_from=saved_pipeline, dtype=torch.float16)
    halved = load_file(tmp_path / "half" / "vae" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in halved.values()} == {torch.float16}


def test_without_a_dtype_every_weight_is_as_it_is_stored(sdxl: State, tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in sdxl.items()}
    found = read_base_model(save(half, tmp_path / "model.safetensors"), dtype=None)
    for part in found.components().values():
        assert {value.dtype for value in part.state_dict().values() if value.is_floating_point()} == {torch.float16}


@pytest.mark.parametrize(
    ("target", "layout", "settings", "message"),
    [
        ("a.safetensors", "diffusers", {}, "is a folder"),
        ("a", "nope", {}, "Unknown layout 'nope'"),
        ("a.safetensors", "original", {"num_heads": 0}, "num_heads must be at least 1; given 0"),
    ],
)
def test_wrong_targets_are_refused_before_the_source_is_read(
    target: str, layout: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        convert_weights(tmp_path / "nothing.safetensors", tmp_path / target, layout, **settings)
    assert not list(tmp_path.iterdir())


def in_other_names(state: State, layout: str, unet: UNet2DConditionModel) -> State:
    own = {key.removeprefix(UNET): value for key, value in state.items() if key.startswith(UNET)}
    averaged = {f"model_ema.diffusion_model{key.replace('.', '')}": value for key, value in own.items()}
    return {
        "averaged": {key: value for key, value in state.items() if not key.startswith(UNET)}
        | averaged
        | {"model_ema.decay": torch.ones(()), "model_ema.num_updates": torch.ones(())},
        "bare": own,
        "wrapper": prefixed("diffusion_model.", own),
        "diffusers": dict(unet.state_dict()),
        "diffusers, named": prefixed("unet.", unet.state_dict()),
    }[layout]


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *(("sd15", layout) for layout in ("averaged", "bare", "wrapper", "diffusers", "diffusers, named")),
        *(("sdxl", layout) for layout in ("averaged", "diffusers")),
    ],
)
def test_other_layouts(
    parts: dict[str, Any], family: str, layout: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    state: State = request.getfixturevalue(family)
    other = in_other_names(state, layout, parts[family])
    unified, _ = unified_unet(other)
    assert {key for key in unified if key.startswith(UNET)} == {key for key in state if key.startswith(UNET)}
    file = save(other, tmp_path / "model.ckpt")
    found = read_base_model(file)
    assert found.variant == f"base-{family}"
    assert same(found.unet, parts[family])
    assert (found.vae is not None) == (layout == "averaged")
    if layout == "averaged":
        assert same(read_base_model(file, averaged=True).unet, parts[family])
    notes = inspect_path(file)["notes"]
    assert any("averaged weights (EMA) of the U-Net, no plain" in note for note in notes) == (layout == "averaged")


def test_plain_weights_come_before_averaged_ones(parts: dict[str, Any], sd15: State, tmp_path: Path) -> None:
    zeros = {key: value * 0 for key, value in in_other_names(sd15, "averaged", parts["sd15"]).items()}
    found = read_base_model(save(zeros | sd15, tmp_path / "model.ckpt"))
    assert same(found.unet, parts["sd15"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (replaced("conv_in.weight", torch.zeros(32, 9, 3, 3)), "takes 9 channels: an inpainting"),
        (replaced("encoder_hid_proj.weight", torch.zeros(1)), "does not have: encoder_hid_proj.weight"),
        (without("up_blocks.0.resnets.0.conv1.bias"), "has no weights for up_blocks.0.resnets.0.conv1.bias"),
        (lambda state: {k: v for k, v in state.items() if not k.startswith("up_")}, "has no weights for up_blocks"),
    ],
)
def test_other_networks_in_the_names_of_diffusers(
    parts: dict[str, Any], change: Callable[[State], State], match: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=match):
        read_base_model(save(change(dict(parts["sd15"].state_dict())), tmp_path / "unet.safetensors"))
