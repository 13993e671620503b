"""EasyAnimate's own folders: what their settings mean here, and the names of their weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from muybridge.errors import ConfigError
from muybridge.files.json_settings import read_json_object
from muybridge.motion import ModuleSpec, hybrid_preset
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.folder_files import read_folder_weights
from muybridge.weights.keymap import KeyMap, apply_key_map
from muybridge.weights.loading import load_strictly
from muybridge.weights.precision import Precision

ModelT = TypeVar("ModelT", bound=nn.Module)

PUBLISHED_KEYS = KeyMap(
    strip_prefixes=("module.",),
    drop=r"\.pos_encoder\.pe$",
    replace=((r"\.attn_temporal\.temporal_transformer\.", ".attn_temporal."),),
)
"""From the original's names to ours: position tables are computed here, and the wrapper module is not there."""

_FIXED: dict[str, tuple[object, ...]] = {
    "dropout": (0, 0.0),
    "norm_num_groups": (32,),
    "attention_bias": (True,),
    "activation_fn": ("gelu-approximate",),
    "num_embeds_ada_norm": (1000,),
    "num_vector_embeds": (None,),
    "use_linear_projection": (False,),
    "only_cross_attention": (False,),
    "double_self_attention": (False,),
    "norm_type": ("ada_norm_single",),
    "norm_elementwise_affine": (False,),
    "attention_type": ("default",),
    "patch_3d": (False,),
    "fake_3d": (False,),
    "casual_3d": (False,),
    "time_position_encoding_before_transformer": (False,),
    "qk_norm": (False,),
    "after_norm": (False,),
    "motion_module_type": ("Vanilla",),
    "basic_block_type": ("motionmodule", "global_motionmodule"),
    "enable_zero_in_inpaint": (False,),
}
"""The original's settings that are not variable here, with the values that are understood."""
_FIXED_MOTION: dict[str, tuple[object, ...]] = {
    "temporal_position_encoding": (True,),
    "temporal_attention_dim_div": (1,),
    "block_size": (1,),
    "remove_time_embedding_in_photo": (False,),
}
_REACH = {"Temporal_Self": "temporal", "Global_Self": "global"}
SHARED_SETTINGS = (
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "num_layers",
    "sample_size",
    "patch_size",
    "caption_channels",
    "norm_eps",
    "enable_uvit",
)
"""Settings of the same name and meaning here and there."""
_CLIP_CHANNELS = 768  # of CLIP ViT-L/14, which every published model with image conditions uses


def is_published(config: SettingsView) -> bool:
    """Whether a `config.json` is the original's and not one of this package."""
    return "basic_block_type" in config


def published_keywords(config: SettingsView) -> SettingsDict:
    """Keyword arguments of `Transformer3DModel` for a `config.json` of EasyAnimate V2 or V3.

    Entries that are no settings of the network (those of its averaging in training) are passed over.

    Raises:
        ConfigError: a feature that is not supported here, or a setting missing.
    """
    _refuse_foreign(config, _FIXED)
    if missing := [name for name in SHARED_SETTINGS if config.get(name) is None]:
        raise ConfigError(f"The transformer's config.json lacks {', '.join(missing)}.")
    keywords = {name: config[name] for name in SHARED_SETTINGS}
    keywords["latent_channels"] = config["out_channels"] // 2  # the other half is the variance
    has_images = config["in_channels"] > keywords["latent_channels"]
    keywords["clip_channels"] = _CLIP_CHANNELS if has_images else None
    return {**keywords, "motion_adapter": _motion(config)}


def _motion(config: SettingsView) -> SettingsDict:
    names = ("motion_module_kwargs_even", "motion_module_kwargs_odd")
    if config["basic_block_type"] == "motionmodule":
        names, presets = ("motion_module_kwargs",), ("easyanimate_v2",)
    else:
        presets = ("easyanimate_v3_even", "easyanimate_v3_odd")
    width = config["num_attention_heads"] * config["attention_head_dim"]
    specs = []
    for name, preset in zip(names, presets, strict=True):
        given = config.get(name)
        if not isinstance(given, Mapping):
            raise ConfigError(f"The transformer's config.json lacks {name}.")
        _refuse_foreign(given, _FIXED_MOTION)
        unknown = [kind for kind in given["attention_block_types"] if kind not in _REACH]
        if unknown:
            raise ConfigError(f"{name} asks for attentions that are not supported: {', '.join(unknown)}.")
        settings = replace(
            hybrid_preset(preset),
            num_heads=given["num_attention_heads"],
            num_blocks=given["num_transformer_block"],
            attentions=tuple(_REACH[kind] for kind in given["attention_block_types"]),
        )
        specs.append(asdict(ModuleSpec("hybrid", width, settings.to_dict())))
    layers = range(config["num_layers"])
    sites = {f"transformer_blocks.{index}.attn_temporal": specs[index % len(specs)] for index in layers}
    return {"modules_by_site": sites, "numerics": "easyanimate"}


def _refuse_foreign(config: SettingsView, fixed: Mapping[str, tuple[object, ...]]) -> None:
    foreign = [
        f"{name}={config[name]!r}" for name, known in fixed.items() if name in config and config[name] not in known
    ]
    if foreign:
        raise ConfigError(f"This transformer has features that are not supported here: {', '.join(foreign)}.")


def load_published(cls: type[ModelT], folder: str | os.PathLike[str] | None, options: SettingsView) -> ModelT | None:
    """Load a folder of the original's, or return None where it is something else.

    Raises:
        CheckpointError: weights missing, left over, damaged or not finite.
        ConfigError: a feature that is not supported here.
    """
    path = Path(folder or "", options.get("subfolder") or "")
    if folder is None or not (path / "config.json").is_file():
        return None
    config = read_json_object(path / "config.json", "the settings of a transformer")
    if not is_published(config):
        return None
    state = apply_key_map(PUBLISHED_KEYS, read_folder_weights(path, _precision(options.get("torch_dtype"))))
    with torch.device("meta"):
        model = cls(**published_keywords(config))
    load_strictly(model, state, str(path), assign=True)
    return model.eval()


def _precision(dtype: torch.dtype | None) -> Precision:
    """Position tables, a sixth of a published file, are neither wanted nor read."""
    if dtype is None:
        return None
    return lambda state: dict.fromkeys((key for key in state if PUBLISHED_KEYS.rename(key) is not None), dtype)
