"""LoRA files of every dialect as one list of layers: which network, which layer, and the two factors."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.lora_kinds import other_kinds
from muybridge.checkpoints.places import require_kind
from muybridge.errors import CheckpointError
from muybridge.files.json_settings import parse_json_object
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.files import read_metadata, read_weights
from muybridge.weights.loading import require_finite
from muybridge.weights.names import listed

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers keeps the settings of a LoRA in the header of a safetensors file."""

_FOLDER_FILES = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
)
_WRAPPERS = ("module.", "base_model.model.")
_PREFIXES = (
    ("lora_unet_", "backbone"),
    ("lora_transformer_", "backbone"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("unet.", "backbone"),
    ("transformer.", "backbone"),
    ("diffusion_model.", "backbone"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
)
"""How a key says which network it is for; AnimateDiff's own files and bare peft files do not say it."""
_ROLES = (
    ("down", re.compile(r"(?:\.lora_down|\.lora_A(?:\.[^.]+)?|[._]lora(?:_linear_layer)?\.down)\.weight$")),
    ("up", re.compile(r"(?:\.lora_up|\.lora_B(?:\.[^.]+)?|[._]lora(?:_linear_layer)?\.up)\.weight$")),
    ("alpha", re.compile(r"(?:_lora)?\.alpha$")),
    ("magnitude", re.compile(r"\.(?:dora_scale|lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?)$")),
)


@dataclass(frozen=True)
class LoraPair:
    """What a file has for one layer: its weight changes by a scale times `up @ down`.

    Attributes:
        key: the layer as the file spells it.
        part: "backbone", "text_encoder" or "text_encoder_2"; None where the file does not say.
        name: the layer's name in that network, with `_` for every `.`, as all dialects can be brought to it.
        down: `[rank, in]`, of a convolution `[rank, in, kernel, kernel]`.
        up: `[out, rank]`, of a convolution `[out, rank, 1, 1]`.
        alpha: what the change is to be multiplied with, times rank; None is the rank.
        magnitude: of DoRA, how long each row of the changed weight is, `[out]`; None for a plain LoRA.
    """

    key: str
    part: str | None
    name: str
    down: Tensor
    up: Tensor
    alpha: float | None
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]


def read_lora(path: str | os.PathLike[str]) -> list[LoraPair]:
    """Read a LoRA file, or the folder that peft or diffusers wrote one to, here or on the hub (see `locate_weights`).

    Raises:
        CheckpointError: unreadable or unsafe file, something other than a LoRA, a kind of adapter that is not
            supported, a factor without its other half, or values that are not finite.
    """
    path = _find_file(locate_weights(path))
    found = read_weights(path)
    require_finite(found.items(), str(path))
    layers: dict[str, dict[str, Tensor]] = {}
    leftover: list[str] = []
    for key, tensor in found.items():
        role, layer = _split_key(key)
        if role is None:
            leftover.append(key)
        elif role in layers.setdefault(layer, {}):
            raise CheckpointError(f"{path} has two keys for the factor {role!r} of {layer}.")
        else:
            layers[layer][role] = tensor
    if leftover and not layers:
        require_kind(found, "lora", str(path), path.name)
    if leftover:
        raise CheckpointError(_describe_leftover(path, leftover, len(layers)))
    settings = _adapter_settings(path)
    return [_pair(path, layer, factors, settings) for layer, factors in layers.items()]


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"The folder {path} has no LoRA in it: none of {', '.join(_FOLDER_FILES)}. Name the file.")


def _split_key(key: str) -> tuple[str | None, str]:
    for role, pattern in _ROLES:
        if match := pattern.search(key):
            return role, key[: match.start()]
    return None, key


def _describe_leftover(path: Path, keys: list[str], num_layers: int) -> str:
    if kinds := other_kinds(keys):
        return (
            f"{path} holds {' and '.join(kinds)} ({listed(list(kinds.values()))}), which is not supported. Use a plain "
            "LoRA."
        )
    if num_layers == 0:
        return (
            f"{path} is no LoRA: none of its {len(keys)} keys is a pair of factors (first keys: {listed(keys)}). If it "
            "is a model, a motion module or a VAE, load it as that."
        )
    return f"{path} has keys that are neither a factor nor an alpha: {listed(keys)}. Use a LoRA without them."


def _pair(path: Path, layer: str, factors: Mapping[str, Tensor], settings: Mapping[str, SettingsView]) -> LoraPair:
    if missing := [role for role in ("down", "up") if role not in factors]:
        raise CheckpointError(f"{path} is incomplete: {layer} has no factor {' and no factor '.join(missing)}.")
    down, up, alpha = factors["down"], factors["up"], factors.get("alpha")
    if down.ndim not in (2, 4) or up.ndim not in (2, 4) or down.shape[0] != up.shape[1] or down.numel() == 0:
        raise CheckpointError(
            f"{path} has factors that do not go together for {layer}: {list(down.shape)} and {list(up.shape)}."
        )
    if alpha is not None and alpha.numel() != 1:
        raise CheckpointError(f"{path} has an alpha of {alpha.numel()} numbers for {layer}; it must be one.")
    prefix, part, name = _place(layer)
    if alpha is None:
        value = _alpha_from_settings(settings.get(prefix.rstrip(".")), name, down.shape[0])
    else:
        value = float(alpha)
    return LoraPair(layer, part, flat_name(name), down, up, value, _magnitude(path, layer, factors))


def _magnitude(path: Path, layer: str, factors: Mapping[str, Tensor]) -> Tensor | None:
    magnitude = factors.get("magnitude")
    if magnitude is None:
        return None
    rows = factors["up"].shape[0]
    if magnitude.numel() != rows or (magnitude.ndim == 2 and magnitude.shape[0] != rows):
        raise CheckpointError(
            f"{path} has a DoRA magnitude of {list(magnitude.shape)} for {layer}, whose weight has {rows} rows; those "
            "of columns are not supported."
        )
    return magnitude.reshape(rows)


def _place(layer: str) -> tuple[str, str | None, str]:
    for wrapper in _WRAPPERS:
        layer = layer.removeprefix(wrapper)
    for prefix, part in _PREFIXES:
        if layer.startswith(prefix):
            return prefix, part, layer.removeprefix(prefix)
    return "", None, layer


def flat_name(name: str) -> str:
    """A layer's name with `_` for every `.`, which is how kohya's dialect has it.

    The `processor` of diffusers' older files is no part of a network, and EasyAnimate's name of its root is empty.
    """
    return name.replace(".processor.", ".").replace(".", "_").lstrip("_")


def _adapter_settings(path: Path) -> dict[str, SettingsView]:
    """The settings that peft and diffusers keep beside the factors, by prefix of the keys they are for."""
    settings: SettingsDict = {}
    text = read_metadata(path).get(METADATA_KEY)
    beside = path.parent / "adapter_config.json"
    if text is None and path.name.startswith("adapter_model.") and beside.is_file():
        text = beside.read_text(errors="replace")
    if text is None:
        return {}
    for key, value in parse_json_object(text, f"What {path} has of settings", "the settings of a LoRA").items():
        prefix, _, field = key.rpartition(".")
        settings.setdefault(prefix, {})[field] = value
    return settings


def _alpha_from_settings(settings: SettingsView | None, name: str, rank: int) -> float | None:
    if settings is None or settings.get("lora_alpha") is None:
        return None
    alpha = settings["lora_alpha"]
    patterns = settings.get("alpha_pattern")
    for pattern, value in (patterns if isinstance(patterns, dict) else {}).items():
        if f".{name}".endswith(f".{pattern.removeprefix('^')}"):  # never run as the regular expression it may be
            alpha = value
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise CheckpointError(f"The settings of this LoRA have no number for the alpha of {name}; given {alpha!r}.")
    return alpha * math.sqrt(rank) if settings.get("use_rslora") else float(alpha)
