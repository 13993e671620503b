"""What SparseCtrl's published files hold: their names as data, and what names and shapes say about the network."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from diffusers import SparseControlNetModel
from torch import Tensor

from muybridge.errors import CheckpointError, ConfigError
from muybridge.motion.keys import DIFFUSERS_MOTION_KEYS, ORIGINAL_MOTION_KEYS, describe_modules
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.keymap import KeyMap, apply_key_map
from muybridge.weights.names import listed

_TABLES = r"\.(pos_encoder|pos_embed)\.pe$"
SPARSE_CONTROL_KEYS = KeyMap(
    strip_prefixes=("module.",),
    drop=_TABLES,
    replace=(*ORIGINAL_MOTION_KEYS.replace, *DIFFUSERS_MOTION_KEYS.replace),
)
"""From the original's names, or diffusers', to ours; no name of one means something else in the other."""

_TRAINED_FRAMES = 32  # of the published ones
_FIXED: dict[str, tuple[object, ...]] = {
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu",),
    "transformer_layers_per_mid_block": (None,),
    "upcast_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "global_pool_conditions": (False,),
    "controlnet_conditioning_channel_order": ("rgb",),
    "concat_conditioning_mask": (True,),
}
"""Settings of diffusers' `SparseControlNetModel` that are not variable here, with the values that are understood."""
_SHARED = (
    "in_channels",
    "conditioning_channels",
    "use_simplified_condition_embedding",
    "conditioning_embedding_out_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "use_linear_projection",
    "norm_num_groups",
    "norm_eps",
    "flip_sin_to_cos",
    "freq_shift",
)


@dataclass(frozen=True)
class PublishedControl:
    """A network as its file or folder has it.

    Attributes:
        settings: keyword arguments of `SparseControlModel`.
        modules: per motion site the fields of `ModuleSpec`.
        state: all weights, under our names.
    """

    settings: SettingsDict
    modules: dict[str, SettingsDict]
    state: dict[str, Tensor]


def describe_control_file(found: Mapping[str, Tensor], source: str, num_heads: int) -> PublishedControl:
    """Read the settings of a SparseCtrl from names and shapes, in the original's layout or in diffusers'.

    Args:
        found: the file's own keys.
        source: its name, for messages.
        num_heads: of the attention along the frames.

    Raises:
        CheckpointError: not a SparseCtrl, without motion modules, or incomplete.
    """
    state = apply_key_map(SPARSE_CONTROL_KEYS, found)
    settings = control_settings(state, source)
    # The last channel of the condition is the mask.
    settings["conditioning_channels"] -= 1
    return PublishedControl(settings, _modules(found, state, source, num_heads), state)


def control_settings(state: Mapping[str, Tensor], source: str) -> SettingsDict:
    """Keyword arguments of a network of ControlNet's kind, read from names (diffusers') and shapes.

    Raises:
        CheckpointError: it has no condition, or keys are missing without which nothing can be said.
    """
    simplified = "controlnet_cond_embedding.weight" in state
    if not simplified and "controlnet_cond_embedding.conv_in.weight" not in state:
        raise CheckpointError(
            f"{source} is not a SparseCtrl: it has no controlnet_cond_embedding (its keys: {listed(list(state))})."
        )
    levels = range(_count(state, r"down_blocks\.(\d+)\."))
    if not levels:
        raise CheckpointError(f"{source} is incomplete: it has no down_blocks.")
    attention = [any(key.startswith(f"down_blocks.{level}.attentions.") for key in state) for level in levels]
    depths = [_depth(state, f"down_blocks.{level}.") if attention[level] else 1 for level in levels]
    if not attention[-1]:  # then the last depth counts for the middle alone
        depths[-1] = _depth(state, "mid_block.")
    embedding = "controlnet_cond_embedding." + ("weight" if simplified else "conv_in.weight")
    settings: SettingsDict = {
        "in_channels": _shape(state, "conv_in.weight", source)[1],
        "conditioning_channels": _shape(state, embedding, source)[1],
        "use_simplified_condition_embedding": simplified,
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention],
        "block_out_channels": [_shape(state, f"down_blocks.{i}.resnets.0.conv1.weight", source)[0] for i in levels],
        "layers_per_block": _count(state, r"down_blocks\.0\.resnets\.(\d+)\."),
        "transformer_layers_per_block": depths,
        "cross_attention_dim": _shape(state, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", source)[
            1
        ],
        "use_linear_projection": len(_shape(state, "mid_block.attentions.0.proj_in.weight", source)) == 2,
    }
    if not simplified:
        strided = range(1, _count(state, r"controlnet_cond_embedding\.blocks\.(\d+)\."), 2)
        names = ["conv_in", *(f"blocks.{index}" for index in strided)]
        settings["conditioning_embedding_out_channels"] = [
            _shape(state, f"controlnet_cond_embedding.{name}.weight", source)[0] for name in names
        ]
    return settings


def describe_diffusers_control(config: SettingsView, found: Mapping[str, Tensor]) -> PublishedControl:
    """The same for the config and the weights of a `SparseControlNetModel` of diffusers.

    Raises:
        ConfigError: a feature that this network does not have.
        CheckpointError: no motion modules.
    """
    foreign = [f"{k}={config[k]!r}" for k, known in _FIXED.items() if k in config and config[k] not in known]
    if foreign:
        raise ConfigError(f"This SparseControlNetModel has features that are not supported here: {', '.join(foreign)}.")
    settings = {name: config[name] for name in _SHARED}
    settings["down_block_types"] = [name.replace("Motion", "2D") for name in config["down_block_types"]]
    settings["attention_head_dim"] = config["num_attention_heads"] or config["attention_head_dim"]
    state = apply_key_map(SPARSE_CONTROL_KEYS, found)
    modules = _modules(found, state, "SparseControlNetModel", config["motion_num_attention_heads"])
    for spec in modules.values():  # there, the motion modules have the groups of the layers around them
        spec["config"]["norm_groups"] = config["norm_num_groups"]
    return PublishedControl(settings, modules, state)


def _modules(
    found: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, num_heads: int
) -> dict[str, SettingsDict]:
    motion = {key: value for key, value in state.items() if "motion_modules." in key}
    if not motion:
        raise CheckpointError(f"{source} has no motion modules; SparseCtrl's files have one after each spatial block.")
    lengths = [table.shape[1] for key, table in found.items() if re.search(_TABLES, key) and table.ndim == 3]
    described = describe_modules(motion, num_heads, min(lengths, default=_TRAINED_FRAMES))
    return {name: asdict(spec) for name, spec in described.items()}


def _depth(state: Mapping[str, Tensor], level: str) -> int:
    return _count(state, re.escape(level) + r"attentions\.0\.transformer_blocks\.(\d+)\.")


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})


def _shape(state: Mapping[str, Tensor], key: str, source: str) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(f"{source} is incomplete: {key} is missing.")
    return tuple(state[key].shape)


def saved_class(folder: str | os.PathLike[str], options: SettingsView) -> str | None:
    """The class that a folder or hub id says it holds; None where it says nothing, which loading then reports."""
    path = Path(folder) / (options.get("subfolder") or "") / "config.json"
    try:
        if Path(folder).is_dir():
            return json.loads(path.read_text()).get("_class_name")
        names = {"cache_dir", "revision", "subfolder", "token", "local_files_only", "force_download"}
        known = {k: v for k, v in options.items() if k in names}
        config = cast("SettingsDict", SparseControlNetModel.load_config(folder, **known))
        return config.get("_class_name")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
