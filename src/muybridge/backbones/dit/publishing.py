"""A transformer written as EasyAnimate's own folders have it, for its program and those that read its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from muybridge.backbones.dit.model import Transformer3DModel
from muybridge.backbones.dit.published import SHARED_SETTINGS, published_keywords
from muybridge.errors import CheckpointError, ConfigError
from muybridge.files.new_folder import replaced_folder
from muybridge.motion import hybrid_preset
from muybridge.motion.hybrid import HybridConfig
from muybridge.types import SettingsDict

_FIXED: SettingsDict = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "double_self_attention": False,
    "dropout": 0.0,
    "norm_elementwise_affine": False,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_embeds_ada_norm": 1000,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "upcast_attention": False,
    "use_linear_projection": False,
    "motion_module_type": "Vanilla",
}
_FIXED_MOTION: SettingsDict = {
    "temporal_position_encoding": True,
    "temporal_position_encoding_max_len": 4096,
    "temporal_attention_dim_div": 1,
    "block_size": 1,
}
_NAMES = {"temporal": "Temporal_Self", "global": "Global_Self"}


def published_config(model: Transformer3DModel) -> SettingsDict:
    """The original's `config.json` for a transformer.

    Raises:
        CheckpointError: settings or motion modules that the original does not have.
    """
    config = {name: model.config[name] for name in SHARED_SETTINGS}
    width = config["num_attention_heads"] * config["attention_head_dim"]
    config |= {"cross_attention_dim": width, **_FIXED, **_motion(_motion_configs(model))}
    try:
        wanted = published_keywords(config)
    except ConfigError as error:
        raise _inexpressible(str(error)) from error
    own = {name: model.config[name] for name in wanted if name != "motion_adapter"}
    if differing := sorted(name for name in own if own[name] != wanted[name]):
        raise _inexpressible(f"it differs in {', '.join(differing)}")
    return config


def published_weights(model: Transformer3DModel) -> dict[str, Tensor]:
    """A transformer's weights under the original's names, without the position tables, which its program makes."""
    return {
        name.replace(".attn_temporal.", ".attn_temporal.temporal_transformer."): value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def write_published(model: Transformer3DModel, folder: Path) -> Path:
    """Write the folder of a transformer as EasyAnimate has it; a folder that is there is replaced.

    Raises:
        CheckpointError: settings or motion modules that the original does not have.
        OutputError: it cannot be written.
    """
    config = published_config(model)
    with replaced_folder(folder) as temporary:
        (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        weights = published_weights(model)
        save_file(weights, temporary / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return folder


def _motion_configs(model: Transformer3DModel) -> list[HybridConfig]:
    adapter = model.motion_adapter
    modules = {} if adapter is None else dict(adapter.motion_modules())
    found: list[HybridConfig] = []
    for index in range(model.config["num_layers"]):
        module = modules.get(f"transformer_blocks.{index}.attn_temporal")
        if module is None or not isinstance(module.config, HybridConfig):
            raise _inexpressible(f"its layer {index} has no motion module of the kind hybrid")
        found.append(module.config)
    return found


def _motion(configs: Sequence[HybridConfig]) -> SettingsDict:
    even, odd = configs[0], configs[-1] if len(configs) < 2 else configs[1]
    if any(config != (odd if index % 2 else even) for index, config in enumerate(configs)):
        raise _inexpressible("its motion modules do not alternate between two kinds")
    if even == odd and even.trained_frames == hybrid_preset("easyanimate_v2").trained_frames:
        return {"basic_block_type": "motionmodule", "motion_module_kwargs": _kwargs(even)}
    return {
        "basic_block_type": "global_motionmodule",
        "motion_module_kwargs_even": _kwargs(even),
        "motion_module_kwargs_odd": _kwargs(odd),
    }


def _kwargs(config: HybridConfig) -> SettingsDict:
    return {
        "num_attention_heads": config.num_heads,
        "num_transformer_block": config.num_blocks,
        "attention_block_types": [_NAMES[reach] for reach in config.attentions],
        **_FIXED_MOTION,
    }


def _inexpressible(reason: str) -> CheckpointError:
    return CheckpointError(
        f"This transformer cannot be written in the original's layout: {reason}. Leave it out; the model's own "
        "folder holds it as it is."
    )
