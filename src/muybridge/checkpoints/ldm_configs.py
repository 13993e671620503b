"""Settings of Stable Diffusion's networks, read from the shapes in a single file, which holds no config."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from muybridge.errors import CheckpointError
from muybridge.types import SettingsDict

State = Mapping[str, Tensor]

_HEAD_WIDTH = 64  # of every CLIP here, and of U-Nets with linear projections; shapes do not tell it
_HEADS_OF_SD15 = 8

PUBLISHED_VAE: SettingsDict = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
"""Of Stable Diffusion 1.5 and XL, whose VAEs are built alike."""
PUBLISHED_CLIP: SettingsDict = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
"""Of the text encoder of Stable Diffusion 1.5, which is the first one of XL."""
PUBLISHED_OPEN_CLIP: SettingsDict = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
"""Of the second text encoder of Stable Diffusion XL."""


def unet_settings(state: State, is_sdxl: bool, text_width: int | None) -> SettingsDict:
    """Keyword arguments of diffusers' `UNet2DConditionModel`.

    Args:
        state: the U-Net's keys, without `model.diffusion_model.`.
        is_sdxl: whether there is an embedding of sizes.
        text_width: of SDXL's text vector, or None where its encoder is not in the file.

    Raises:
        CheckpointError: keys are missing without which nothing can be said.
    """
    entry = _get(state, "input_blocks.0.0.weight")
    rows = _count(state, r"input_blocks\.(\d+)\.")
    ends = [i for i in range(rows) if f"input_blocks.{i}.0.op.weight" in state]
    starts = [1, *(end + 1 for end in ends)]
    layers = (ends[0] if ends else rows) - 1
    channels = [len(_get(state, f"input_blocks.{start}.0.in_layers.2.weight")) for start in starts]
    depths = [_depth(state, f"input_blocks.{start}.1.") for start in starts]
    first = next((f"input_blocks.{start}.1." for start, depth in zip(starts, depths, strict=True) if depth), None)
    if first is None:
        raise CheckpointError("The U-Net in this file has no spatial transformers; it is not Stable Diffusion's.")
    linear = _get(state, first + "proj_in.weight").ndim == 2
    middle = _depth(state, "middle_block.1.")
    settings: SettingsDict = {
        "sample_size": 128 if is_sdxl else 64,
        "in_channels": entry.shape[1],
        "out_channels": len(_get(state, "out.2.weight")),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        # A level without transformers has a depth too, which the middle takes from the last.
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), depths[-1] or middle],
        "cross_attention_dim": _get(state, first + "transformer_blocks.0.attn2.to_k.weight").shape[1],
        "attention_head_dim": [max(1, width // _HEAD_WIDTH) for width in channels] if linear else _HEADS_OF_SD15,
        "use_linear_projection": linear,
    }
    if is_sdxl:
        width = _get(state, "label_emb.0.0.weight").shape[1]
        settings |= {
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": width,
            "addition_time_embed_dim": 256 if text_width is None else (width - text_width) // 6,
        }
    return settings


def vae_settings(state: State, is_sdxl: bool) -> SettingsDict:
    """Keyword arguments of diffusers' `AutoencoderKL`, but for the scale of its latents, which no shape tells.

    Args:
        state: the original's names, without what stands before `encoder`, or diffusers'.
        is_sdxl: whether it is for the larger pictures of Stable Diffusion XL.

    Raises:
        CheckpointError: keys are missing without which nothing can be said.
    """
    is_diffusers = "encoder.down_blocks.0.resnets.0.conv1.weight" in state
    down, block = ("down_blocks", "resnets") if is_diffusers else ("down", "block")
    levels = _count(state, rf"encoder\.{down}\.(\d+)\.")
    channels = [len(_get(state, f"encoder.{down}.{level}.{block}.0.conv1.weight")) for level in range(levels)]
    return {
        "in_channels": _get(state, "encoder.conv_in.weight").shape[1],
        "out_channels": len(_get(state, "decoder.conv_out.weight")),
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(state, rf"encoder\.{down}\.0\.{block}\.(\d+)\."),
        "latent_channels": _get(state, "decoder.conv_in.weight").shape[1],
        "sample_size": 1024 if is_sdxl else 512,
        "use_quant_conv": "quant_conv.weight" in state,
        "use_post_quant_conv": "post_quant_conv.weight" in state,
    }


def clip_settings(state: State) -> SettingsDict:
    """Keyword arguments of `CLIPTextConfig` for CLIP's own names, without what stands before `embeddings`.

    Raises:
        CheckpointError: keys are missing without which nothing can be said.
    """
    tokens = _get(state, "embeddings.token_embedding.weight")
    return {
        **_text_settings(*tokens.shape),
        "max_position_embeddings": len(_get(state, "embeddings.position_embedding.weight")),
        "num_hidden_layers": _count(state, r"encoder\.layers\.(\d+)\."),
        "intermediate_size": len(_get(state, "encoder.layers.0.mlp.fc1.weight")),
        "hidden_act": "quick_gelu",
        "projection_dim": tokens.shape[1],
    }


def open_clip_settings(state: State) -> SettingsDict:
    """Keyword arguments of `CLIPTextConfig` for OpenCLIP's names, as SDXL's second encoder has them.

    Raises:
        CheckpointError: keys are missing without which nothing can be said.
    """
    tokens = _get(state, "token_embedding.weight")
    return {
        **_text_settings(*tokens.shape),
        "max_position_embeddings": len(_get(state, "positional_embedding")),
        "num_hidden_layers": _count(state, r"transformer\.resblocks\.(\d+)\."),
        "intermediate_size": len(_get(state, "transformer.resblocks.0.mlp.c_fc.weight")),
        "hidden_act": "gelu",
        "projection_dim": _get(state, "text_projection").shape[1],
    }


def _text_settings(vocabulary: int, width: int) -> SettingsDict:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def _get(state: State, key: str) -> Tensor:
    if key not in state:
        raise CheckpointError(f"The file is incomplete: {key} is missing, which tells the sizes of its network.")
    return state[key]


def _count(state: State, pattern: str) -> int:
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})


def _depth(state: State, prefix: str) -> int:
    return _count(state, re.escape(prefix) + r"transformer_blocks\.(\d+)\.")
