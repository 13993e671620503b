"""Image prompt adapters (IP-Adapter) read from their published files.

Such a file has two parts: `image_proj`, which makes tokens of what CLIP sees, and `ip_adapter`, the keys and values of
those tokens for every text attention of a U-Net, numbered 1, 3, 5 and so on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers.models.embeddings import ImageProjection, IPAdapterFullImageProjection, IPAdapterPlusImageProjection
from torch import Tensor, nn

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.image_prompt import ImageAttention, text_attention_blocks
from muybridge.checkpoints.detect import IMAGE_PROMPT_BASES, picture_projection
from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.places import require_kind
from muybridge.errors import CheckpointError
from muybridge.weights.files import read_weights
from muybridge.weights.keymap import KeyMap, apply_key_map
from muybridge.weights.loading import load_strictly
from muybridge.weights.names import listed

_HEAD_WIDTH = 64  # of the resampler's attention, which its weights do not tell
_PARTS = ("image_proj", "ip_adapter")
_PLAIN_KEYS = KeyMap(replace=((r"^proj\.", "image_embeds."),))
_FULL_KEYS = KeyMap(replace=((r"^proj\.0\.", "ff.net.0.proj."), (r"^proj\.2\.", "ff.net.2."), (r"^proj\.3\.", "norm.")))
_RESAMPLER_KEYS = KeyMap(
    replace=(
        (r"^(layers\.\d+)\.0\.norm1\.", r"\1.ln0."),
        (r"^(layers\.\d+)\.0\.norm2\.", r"\1.ln1."),
        (r"^(layers\.\d+)\.0\.to_out\.", r"\1.attn.to_out.0."),
        (r"^(layers\.\d+)\.0\.(to_[qkv])\.", r"\1.attn.\2."),
        (r"^(layers\.\d+)\.1\.0\.", r"\1.ff.0."),
        (r"^(layers\.\d+)\.1\.1\.", r"\1.ff.1.net.0.proj."),
        (r"^(layers\.\d+)\.1\.3\.", r"\1.ff.1.net.2."),
    )
)

ImageFeatures = Literal["embedding", "patches"]
"""What of CLIP an adapter reads: the projected embedding `[b, d]`, or the last but one hidden states `[b, n, d]`."""


@dataclass(frozen=True, eq=False)
class ImagePromptAdapter:
    """What a file holds, for one U-Net.

    Attributes:
        projection: from `features` of a picture to its tokens, `[b, m, d]`.
        features: what of CLIP it reads.
        features_width: channels of those.
        attentions: for every text attention, by the name of its block.
    """

    projection: nn.Module
    features: ImageFeatures
    features_width: int
    attentions: dict[str, ImageAttention]


def read_image_prompt_adapter(path: str | os.PathLike[str], unet: UNet3DConditionModel) -> ImagePromptAdapter:
    """Read `ip-adapter_sd15`, `-light`, `-plus`, `-plus-face`, `-full-face` and their like, in float32 on the CPU.

    Args:
        path: a `.safetensors` file, or a pickle (no code in it is run), here or on the hub (see `locate_weights`).
        unet: which it must fit; it is left as it is.

    Raises:
        CheckpointError: a file that cannot be read, is something else, is for another U-Net, or is incomplete.
    """
    path = locate_weights(path)
    projection, numbered = _parts(path)
    attentions = _attentions(numbered, unet, path.name)
    module, features, features_width = _projection(projection, path.name)
    return ImagePromptAdapter(module.eval().requires_grad_(False), features, features_width, attentions)


def _parts(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    state = read_weights(path)
    image, adapter = (
        {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
        for part in _PARTS
    )
    foreign = [key for key in state if not key.startswith(tuple(f"{part}." for part in _PARTS))]
    if foreign or not image or not adapter:
        require_kind(state, "ip-adapter", path.name, path.name)
        raise CheckpointError(
            f"{path.name} is no image prompt adapter: its keys must all begin with 'image_proj.' or 'ip_adapter.', "
            f"and it has {listed(foreign or list(state))}."
        )
    return image, adapter


def _attentions(numbered: Mapping[str, Tensor], unet: UNet3DConditionModel, name: str) -> dict[str, ImageAttention]:
    if any("_lora." in key for key in numbered):
        raise CheckpointError(
            f"{name} is an IP-Adapter of the kind FaceID, which reads faces with a network of its own and brings a "
            "LoRA; not supported. Use ip-adapter-plus-face or ip-adapter-full-face for faces."
        )
    blocks = text_attention_blocks(unet)
    numbers = sorted({int(key.split(".")[0]) for key in numbered if re.match(r"\d+\.to_[kv]_ip\.weight$", key)})
    widths = {value.shape[1] for value in numbered.values() if value.ndim == 2}
    own_width = int(unet.config["cross_attention_dim"])
    if len(numbers) != len(blocks) or widths != {own_width}:
        raise CheckpointError(
            f"{name} is for another U-Net: it is for {_kind(len(numbers), max(widths, default=0))}, and this U-Net has "
            f"{_kind(len(blocks), own_width)}. Use one made for this kind of model."
        )
    with torch.device("meta"):
        attentions = {
            block: ImageAttention(each.norm2.normalized_shape[0], own_width) for block, each in blocks.items()
        }
    expected = nn.ModuleDict({str(number): each for number, each in zip(numbers, attentions.values(), strict=True)})
    load_strictly(expected, {key: value.float() for key, value in numbered.items()}, name, assign=True)
    return attentions


def _kind(count: int, width: int) -> str:
    _, title = IMAGE_PROMPT_BASES.get((count, width), ("", ""))
    return f"{count} text attentions {width} wide{title and f' ({title})'}"


def _projection(state: Mapping[str, Tensor], name: str) -> tuple[nn.Module, ImageFeatures, int]:
    features: ImageFeatures = "patches"
    kind = picture_projection(state)
    if kind == "plus":
        module, renamed = _resampler(state, name)
        width = state["proj_in.weight"].shape[1]
    elif kind == "plain":
        features, width, text_width = "embedding", state["proj.weight"].shape[1], state["norm.weight"].shape[0]
        with torch.device("meta"):
            module = ImageProjection(width, text_width, state["proj.weight"].shape[0] // text_width)
        renamed = apply_key_map(_PLAIN_KEYS, state)
    elif kind == "full":
        width = state["proj.0.weight"].shape[0]
        with torch.device("meta"):
            module = IPAdapterFullImageProjection(width, state["proj.3.weight"].shape[0])
        renamed = apply_key_map(_FULL_KEYS, state)
    else:
        raise CheckpointError(
            f"{name} makes tokens of a picture in a way that is not supported (keys {listed(list(state))}). "
            "Supported are ip-adapter, -light, -plus, -plus-face and -full-face; FaceID is not."
        )
    load_strictly(module, {key: value.float() for key, value in renamed.items()}, name, assign=True)
    return module, features, width


def _resampler(state: Mapping[str, Tensor], name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".to_kv." in key:
            split[key.replace(".to_kv.", ".to_k.")], split[key.replace(".to_kv.", ".to_v.")] = value.chunk(2)
        else:
            split[key] = value
    renamed = apply_key_map(_RESAMPLER_KEYS, split)
    first = {key: renamed.get(f"layers.0.{key}.weight") for key in ("attn.to_q", "ff.1.net.0.proj")}
    query, inner = first.values()
    if query is None or inner is None:
        raise CheckpointError(f"{name} has no weights for {', '.join(k for k, v in first.items() if v is None)}.")
    if not query.ndim == inner.ndim == 2:
        raise CheckpointError(f"{name} is damaged: {' and '.join(first)} must have two axes. Get it again.")
    depth = len({key.split(".")[1] for key in renamed if key.startswith("layers.")})
    num_tokens, width = state["latents"].shape[1:]
    with torch.device("meta"):
        module = IPAdapterPlusImageProjection(
            embed_dims=state["proj_in.weight"].shape[1],
            output_dims=state["proj_out.weight"].shape[0] if "proj_out.weight" in state else width,
            hidden_dims=width,
            depth=depth,
            dim_head=_HEAD_WIDTH,
            heads=query.shape[0] // _HEAD_WIDTH,
            num_queries=num_tokens,
            ffn_ratio=inner.shape[0] / width,
        )
    return module, renamed
