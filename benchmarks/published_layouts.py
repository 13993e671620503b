"""Both families written to disk as they are published, with random weights: folders, a single file, a motion file.

Weights are made and written tensor by tensor, so that building takes the memory of the largest tensor; no network is
ever there with numbers in it.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    T5Tokenizer,
)

from measuring import default_dtype, randomise_, set_random_
from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import published_keywords
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.ldm_names import ldm_names
from muybridge.checkpoints.motion_export import original_weights
from muybridge.demo.models import make_tokenizer
from muybridge.files.atomic import new_file
from muybridge.motion import MotionAdapter
from muybridge.vae import AutoencoderKLMagvit
from networks import ANIMATEDIFF_TINY, ANIMATEDIFF_V2, EASYANIMATE_TINY, EASYANIMATE_V3, Settings, on_meta, t5

TRANSFORMER_CONFIG: dict[str, Any] = {
    "_class_name": "Transformer2DModel",
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 12,
    "out_channels": 8,
    "num_layers": 28,
    "sample_size": 64,
    "patch_size": 2,
    "caption_channels": 4096,
    "norm_eps": 1e-6,
    "enable_uvit": True,
    "basic_block_type": "global_motionmodule",
}
"""What a published `transformer/config.json` says of the size of EasyAnimate V3."""
_SIZES = ("num_attention_heads", "attention_head_dim", "num_layers", "sample_size", "caption_channels")
_MOTION = {"num_transformer_block": 1, "temporal_position_encoding": True, "temporal_attention_dim_div": 1}
_ATTENTIONS = {"even": ["Temporal_Self", "Temporal_Self"], "odd": ["Temporal_Self", "Global_Self"]}
_TABLE_FRAMES = 4096
_VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SHARD = 5 * 10**9
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_UNET = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
_VAE_LEVELS = 4
_LDM_VAE = (
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    *((rf"mid_block\.resnets\.{row}", f"mid.block_{row + 1}") for row in (0, 1)),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    *((rf"up_blocks\.{i}\.resnets", f"up.{_VAE_LEVELS - 1 - i}.block") for i in range(_VAE_LEVELS)),
    *((rf"up_blocks\.{i}\.upsamplers\.0", f"up.{_VAE_LEVELS - 1 - i}.upsample") for i in range(_VAE_LEVELS)),
)
"""diffusers' names of the parts of an image VAE, and the original's."""


EASYANIMATE, STABLE_DIFFUSION = "EasyAnimateV3-XL-2-InP-768x768", "stable-diffusion-v1-5"
SINGLE_FILE, MOTION_FILE = "v1-5-pruned-emaonly.safetensors", "v3_sd15_mm.ckpt"
FULL_SIZE_BYTES = {"easyanimate": 20 * 10**9, "animatediff": 11 * 10**9}
"""Of the files, with some room, by family."""


def build(folder: Path, family: str, tiny: bool = False) -> list[Path]:
    """Write the layouts of a family into a folder; those that are there already are left.

    Raises:
        SystemExit: the disk has less room than they take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = (0 if tiny else FULL_SIZE_BYTES[family]), shutil.disk_usage(folder).free
    print(f"{family}: up to {needed / 1e9:.0f} GB of {free / 1e9:.0f} GB that are free in {folder}", flush=True)
    if free < needed:
        raise SystemExit("That is more than there is. Free some, or build one family at a time with --family.")
    easyanimate = EASYANIMATE_TINY if tiny else EASYANIMATE_V3
    animatediff = ANIMATEDIFF_TINY if tiny else ANIMATEDIFF_V2
    layouts: dict[str, Any] = {
        "easyanimate": {EASYANIMATE: (write_easyanimate, easyanimate)},
        "animatediff": {
            STABLE_DIFFUSION: (write_stable_diffusion, animatediff),
            SINGLE_FILE: (write_single_file, animatediff),
            MOTION_FILE: (write_motion_file, animatediff),
        },
    }
    for name, (write, settings) in layouts[family].items():
        if not (folder / name).exists():
            write(folder / name, settings)
    return [folder / name for name in layouts[family]]


def write_easyanimate(folder: Path, settings: Settings, weights: bool = True) -> None:
    """EasyAnimate V3 as published: transformer in float32 with position tables, T5 in shards, the whole of CLIP.

    Args:
        folder: new; its name says the resolution that the model is for.
        settings: of the networks.
        weights: whether to write them, or only what describes the networks.
    """
    config = TRANSFORMER_CONFIG | {name: settings.backbone[name] for name in _SIZES if name in settings.backbone}
    for kind, attentions in _ATTENTIONS.items():
        heads = {"num_attention_heads": config["num_attention_heads"], "attention_block_types": attentions}
        config[f"motion_module_kwargs_{kind}"] = {**_MOTION, **heads}
    with torch.device("meta"):
        transformer = Transformer3DModel(**published_keywords(config))
        vae = AutoencoderKLMagvit(**settings.vae)
        clip = CLIPModel(CLIPConfig(**_clip(settings)))
    state: dict[str, Tensor] = {}
    for name, value in transformer.state_dict().items():
        original = name.replace(".attn_temporal.", ".attn_temporal.temporal_transformer.")
        state[original] = value
        if name.endswith(".to_q.weight") and original != name:
            table = torch.empty(1, _TABLE_FRAMES, value.shape[1], device="meta")
            state[f"{original.removesuffix('to_q.weight')}pos_encoder.pe"] = table
    dtype = torch.float32 if weights else None
    folder.mkdir(parents=True)
    _write_part(folder / "transformer", config, state, dtype)
    leftovers = {
        "loss.perceptual.weight": torch.empty(20, 1000, 1000 if settings is EASYANIMATE_V3 else 1, device="meta")
    }
    _write_part(
        folder / "vae", dict(vae.config) | {"_class_name": "AutoencoderKL"}, vae.state_dict() | leftovers, dtype
    )
    with default_dtype(torch.bfloat16):
        _write_shards(folder / "text_encoder", on_meta(t5, settings), torch.bfloat16 if weights else None)
    _write_part(folder / "image_encoder", clip.config.to_dict() | _named(clip), clip.state_dict(), dtype, "model")
    CLIPImageProcessorPil().save_pretrained(folder / "image_encoder")
    letters = [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,."]
    T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]).save_pretrained(folder / "tokenizer")
    EulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline"}))


def write_stable_diffusion(folder: Path, settings: Settings, weights: bool = True) -> None:
    """Stable Diffusion 1.5 as diffusers saves it, in float32."""
    unet, vae, text = _stable_diffusion(settings)
    dtype = torch.float32 if weights else None
    folder.mkdir(parents=True)
    _write_part(folder / "unet", dict(unet.config) | {"_class_name": "UNet2DConditionModel"}, unet.state_dict(), dtype)
    _write_part(folder / "vae", dict(vae.config) | {"_class_name": "AutoencoderKL"}, vae.state_dict(), dtype)
    _write_part(folder / "text_encoder", text.config.to_dict() | _named(text), text.state_dict(), dtype, "model")
    make_tokenizer().save_pretrained(folder / "tokenizer")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def write_single_file(path: Path, settings: Settings, weights: bool = True, only: str = "") -> None:
    """Stable Diffusion 1.5 in one file of the original's names, in float32; without weights a file with a hole.

    `only` is what names must begin with.
    """
    unet, vae, text = _stable_diffusion(settings)
    state = {f"model.diffusion_model.{_ldm_unet_name(name, unet)}": value for name, value in unet.state_dict().items()}
    for name, value in vae.state_dict().items():
        new = name
        for pattern, replacement in _LDM_VAE:
            new = re.sub(pattern, replacement, new)
        is_convolution = re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$", new)
        state[f"first_stage_model.{new}"] = value[:, :, None, None] if is_convolution else value
    for name, value in text.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    chosen = {name: value for name, value in state.items() if name.startswith(only)}
    _write_safetensors(path, chosen, torch.float32, weights)


def write_motion_file(path: Path, settings: Settings) -> None:
    """AnimateDiff's motion modules, version 3, as a pickle of the original's names in float32."""
    adapter = on_meta(_motion_adapter, settings).to_empty(device="cpu")
    randomise_(adapter)
    with new_file(path) as temporary:
        torch.save({"state_dict": original_weights(adapter)}, temporary)


def write_adapter_settings(folder: Path, settings: Settings) -> None:
    """The same modules as the folder of an adapter without its weights."""
    on_meta(_motion_adapter, settings).save_config(folder)


def _motion_adapter(settings: Settings) -> MotionAdapter:
    sites = UNet3DConditionModel(**settings.backbone).motion_sites().values()
    return MotionAdapter.for_sites([site for site in sites if not site.name.startswith("mid_block")])


def _stable_diffusion(settings: Settings) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    with torch.device("meta"):
        return (
            UNet2DConditionModel(**{**_UNET, **settings.backbone}),
            AutoencoderKL(**settings.vae),
            CLIPTextModel(CLIPTextConfig(**settings.text)),
        )


def _clip(settings: Settings) -> dict[str, Any]:
    channels = settings.backbone.get("clip_channels")
    narrow = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = _VISION if channels is None else narrow
    # What the published config of a transformer implies, whatever its size.
    return {
        "vision_config": {**vision, "image_size": 224, "patch_size": 14, "projection_dim": 768},
        "text_config": {} if channels is None else narrow,
        "projection_dim": 768,
    }


def _named(model: Any) -> dict[str, Any]:
    return {"architectures": [type(model).__name__]}


def _ldm_unet_name(name: str, unet: UNet2DConditionModel) -> str:
    layer, _, last = name.rpartition(".")
    names = ldm_names(layer, unet.config["layers_per_block"])
    if len(names) == 2:  # what enlarges stands behind the transformer, where the level has one
        level = int(layer.split(".")[1])
        names = [names["CrossAttn" in unet.config["up_block_types"][level]]]
    return f"{names[0]}.{last}"


def _write_part(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    stem: str = "diffusion_pytorch_model",
) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(config), default=str))
    if dtype is not None:
        _write_safetensors(folder / f"{stem}.safetensors", state, dtype)


def _write_shards(folder: Path, model: Any, dtype: torch.dtype | None) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in model.state_dict().items():
        if name == "encoder.embed_tokens.weight":  # the same as `shared.weight`
            continue
        if size + value.nbytes > _SHARD:
            shards, size = [*shards, {}], 0
        shards[-1][name] = value
        size += value.nbytes
    _write_part(folder, model.config.to_dict() | _named(model), {}, None)
    if dtype is None:
        return
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_safetensors(folder / name, shard, dtype)
    weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _write_safetensors(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype, weights: bool = True) -> None:
    """A file of random weights of these names and shapes, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in state.items():
        start, end = end, end + math.prod(value.shape) * dtype.itemsize
        header[name] = {"dtype": _TYPES[dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    with new_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + end)
        for name, value in state.items() if weights else ():
            weight = torch.empty(value.shape, dtype=dtype)
            set_random_(name, weight, generator)
            file.write(weight.view(-1).view(torch.uint8).numpy().data)
