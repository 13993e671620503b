"""LoRA files in the dialects that other programs read."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from muybridge.checkpoints.lora.matching import LoraChange
from muybridge.checkpoints.lora.names import CLIP_SPELLING, DIFFUSERS_SPELLINGS, ORIGINAL_SPELLING
from muybridge.checkpoints.lora.reading import METADATA_KEY, flat_name
from muybridge.errors import ConfigError
from muybridge.files.atomic import check_folder_above, new_file
from muybridge.types import SettingsDict

Dialect = Literal["diffusers", "kohya", "original"]
DIALECTS: tuple[Dialect, ...] = ("diffusers", "kohya", "original")

_ATTENTION_PROJECTION = re.compile(r"(.*\.(?:attn[12]|attention_blocks\.\d+))\.(to_q|to_k|to_v|to_out)(?:\.0)?")
_KOHYA_TEXT = {"text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}


def write_lora(
    path: str | os.PathLike[str],
    changes: Mapping[str, Mapping[str, LoraChange]],
    backbone: Literal["unet", "transformer"],
    dialect: Dialect,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a `.safetensors` file.

    Args:
        path: of the file.
        changes: for each part ("backbone", "text_encoder", ...), the changes by name of the layer.
        backbone: what the other programs call the backbone.
        dialect: "diffusers" for diffusers and peft, "kohya" for kohya's scripts and EasyAnimate, "original" as
            AnimateDiff publishes motion LoRAs and the domain adapter, which has no alphas: they go into the factors.
        metadata: for the header of the file.

    Raises:
        ConfigError: another ending of the file's name, an unknown dialect, or one that cannot express the changes.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConfigError(f"A LoRA is saved as .safetensors; given {path}.")
    if dialect not in DIALECTS:
        raise ConfigError(f"dialect must be one of {DIALECTS}; given {dialect!r}.")
    check_folder_above(path)
    tensors, header = _ENTRIES[dialect](changes, backbone)
    header = {**(metadata or {}), **header}
    with new_file(path) as temporary:
        save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, temporary, header)
    return path


def check_dialect(
    changes: Mapping[str, Mapping[str, LoraChange]], backbone: Literal["unet", "transformer"], dialect: Dialect
) -> None:
    """Whether a LoRA of these changes can be written in a dialect.

    Raises:
        ConfigError: it cannot; says in which it can.
    """
    _ENTRIES[dialect](changes, backbone)


def _kohya_entries(
    changes: Mapping[str, Mapping[str, LoraChange]], backbone: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    # EasyAnimate's program puts a second separator after the empty name of its root.
    prefixes = {"backbone": "lora_unet_" if backbone == "unet" else "lora_unet__", **_KOHYA_TEXT}
    if "text_encoder_2" in changes:
        prefixes["text_encoder"] = "lora_te1_"
    tensors: dict[str, Tensor] = {}
    for part, layers in changes.items():
        for name, change in layers.items():
            spelled = prefixes[part] + flat_name(_respelled(name, ORIGINAL_SPELLING, CLIP_SPELLING))
            tensors[f"{spelled}.lora_down.weight"] = change.down
            tensors[f"{spelled}.lora_up.weight"] = change.up
            tensors[f"{spelled}.alpha"] = torch.tensor(change.alpha, dtype=torch.float32)
            if change.magnitude is not None:
                tensors[f"{spelled}.dora_scale"] = change.magnitude.reshape(-1, 1)
    return tensors, {"format": "pt"}


def _original_entries(
    changes: Mapping[str, Mapping[str, LoraChange]], backbone: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    for part, layers in changes.items():
        for name, change in layers.items():
            match = _ATTENTION_PROJECTION.fullmatch(_respelled(name, ORIGINAL_SPELLING))
            if part != "backbone" or backbone != "unet" or match is None or change.magnitude is not None:
                raise ConfigError(
                    f"AnimateDiff's layout has plain LoRAs of attentions in a U-Net only, and this one changes {name} "
                    f"of the {part}. Write it in the dialect diffusers or kohya."
                )
            spelled = f"{match[1]}.processor.{match[2]}_lora"
            tensors[f"{spelled}.down.weight"] = change.down
            tensors[f"{spelled}.up.weight"] = change.up * (change.alpha / change.rank)
    return tensors, {"format": "pt"}


def _diffusers_entries(
    changes: Mapping[str, Mapping[str, LoraChange]], backbone: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    settings: SettingsDict = {}
    for part, layers in changes.items():
        prefix = backbone if part == "backbone" else part
        spelled = {_respelled(name, *DIFFUSERS_SPELLINGS, CLIP_SPELLING): change for name, change in layers.items()}
        for name, change in spelled.items():
            tensors[f"{prefix}.{name}.lora_A.weight"] = change.down
            tensors[f"{prefix}.{name}.lora_B.weight"] = change.up
            if change.magnitude is not None:
                tensors[f"{prefix}.{name}.lora_magnitude_vector"] = change.magnitude
        settings |= {f"{prefix}.{field}": value for field, value in _peft_settings(spelled).items()}
    # Without settings, alpha is the rank; older programs know no others.
    every = [change for layers in changes.values() for change in layers.values()]
    if all(change.alpha == change.rank for change in every):
        return tensors, {"format": "pt"}
    return tensors, {"format": "pt", METADATA_KEY: json.dumps(settings)}


def _peft_settings(layers: Mapping[str, LoraChange]) -> SettingsDict:
    rank = Counter(change.rank for change in layers.values()).most_common(1)[0][0]
    alpha = Counter(change.alpha for change in layers.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{name}": change.rank for name, change in layers.items() if change.rank != rank},
        "alpha_pattern": {f"^{name}": change.alpha for name, change in layers.items() if change.alpha != alpha},
        "target_modules": list(layers),
        **({"use_dora": True} if any(change.magnitude is not None for change in layers.values()) else {}),
    }


def _respelled(name: str, *rules: tuple[str, str]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


_Entries = Callable[[Mapping[str, Mapping[str, LoraChange]], str], tuple[dict[str, Tensor], dict[str, str]]]
_ENTRIES: Mapping[str, _Entries] = {
    "diffusers": _diffusers_entries,
    "kohya": _kohya_entries,
    "original": _original_entries,
}
