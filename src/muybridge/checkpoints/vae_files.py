"""Image VAEs by themselves: in a file, in a folder, or on the hub."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from torch import Tensor

from muybridge.checkpoints.ldm_configs import vae_settings
from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.places import require_kind
from muybridge.checkpoints.translated import filled
from muybridge.errors import CheckpointError, ConfigError
from muybridge.files.json_settings import read_json_object
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.files import read_weights
from muybridge.weights.keymap import KeyMap, apply_key_map
from muybridge.weights.loading import load_folder
from muybridge.weights.names import listed
from muybridge.weights.precision import Precision

PREFIXES = ("first_stage_model.", "vae.")
"""Before the keys of a VAE in the file of a whole model."""
SD15_SCALE, SDXL_SCALE = 0.18215, 0.13025
_PART = "vae"
_OLD_NAMES = KeyMap(
    replace=(
        (r"(\.attentions\.\d+)\.query\.", r"\1.to_q."),
        (r"(\.attentions\.\d+)\.key\.", r"\1.to_k."),
        (r"(\.attentions\.\d+)\.value\.", r"\1.to_v."),
        (r"(\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
    )
)
"""diffusers' names of before 2023, as the well-known files have them."""
_OTHERS = {
    "AutoencoderTiny": "TAESD, which gives previews and does not encode as Stable Diffusion's does",
    "ConsistencyDecoderVAE": "a consistency decoder, which denoises a picture anew",
    "AsymmetricAutoencoderKL": "a VAE for inpainting, which is shown the picture around a mask",
    "AutoencoderKLTemporalDecoder": "the VAE of Stable Video Diffusion, which decodes all frames together",
    "AutoencoderKLMagvit": "the VAE of EasyAnimate",
}
_TAESD = re.compile(r"((taesd_)?(encoder|decoder)\.)?(layers\.)?\d+\.(conv\.\d+\.|skip\.)?(weight|bias)$")


def read_vae(
    name: str | os.PathLike[str],
    dtype: torch.dtype | None,
    *,
    own: SettingsView | None = None,
    is_sdxl: bool = False,
) -> AutoencoderKL:
    """Read the VAE of Stable Diffusion 1.x or XL that is shared by itself.

    Files have the original's names, with `first_stage_model.` before them or not, or diffusers'. Folders are of an
    `AutoencoderKL` of diffusers', or of a pipeline that has one in `vae`.

    Args:
        name: the file or folder, here or on the hub (see `locate_weights`).
        dtype: of the weights; None keeps every one of a file as it is stored.
        own: settings of the model's own VAE, with whose latents those of this one have to agree: `scaling_factor`,
            which a file does not say, and `block_out_channels`, of which there is one for each size. By default those
            of the family.
        is_sdxl: whether the model is Stable Diffusion XL, whose VAE is computed in float32.

    Raises:
        CheckpointError: missing, damaged, half of a VAE, or a VAE of another kind.
        ConfigError: a VAE whose latents have another scale or size.
    """
    expected = {"scaling_factor": SDXL_SCALE if is_sdxl else SD15_SCALE, **(own or {})}
    path = locate_vae(name)
    if path.is_dir():
        vae = _read_folder(path, dtype)
    else:
        scale = expected["scaling_factor"]
        vae = vae_from_weights(read_weights(path, _precision(dtype)), str(path), dtype, scale=scale, is_sdxl=is_sdxl)
    _check_latents(vae, expected, str(path))
    return vae


def _precision(dtype: torch.dtype | None) -> Precision:
    """The VAE in `dtype`; of the file of a whole model nothing else is converted."""
    if dtype is None:
        return None

    def precision(state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
        own = [key for key in state if key.removeprefix("module.").startswith(PREFIXES)]
        return dict.fromkeys(own or state, dtype)

    return precision


def vae_from_weights(
    state: Mapping[str, Tensor], source: str, dtype: torch.dtype | None, *, scale: float, is_sdxl: bool
) -> AutoencoderKL:
    """The VAE in what a file holds; without `dtype` it shares its tensors.

    Args:
        state: its keys, those of a whole model around them or not.
        source: its name, for messages.
        dtype: as of `read_vae`.
        scale: what its latents are multiplied with, which no shape tells.
        is_sdxl: as of `read_vae`.

    Raises:
        CheckpointError: as of `read_vae`.
    """
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    own = next((part for prefix in PREFIXES if (part := _below(plain, prefix))), plain)
    # What training leaves beside the weights.
    own = {key: value for key, value in own.items() if not key.startswith(("loss.", "model_ema."))}
    _require_image_vae(own, state, source)
    own = apply_key_map(_OLD_NAMES, own)
    settings = {**vae_settings(own, is_sdxl), "scaling_factor": scale}
    is_diffusers = any(key.startswith("decoder.up_blocks.") for key in own)
    if not is_diffusers:
        own = convert_ldm_vae_checkpoint({PREFIXES[0] + key: value for key, value in own.items()}, settings)
    with init_empty_weights():
        vae = AutoencoderKL(**settings, force_upcast=is_sdxl)
    return filled(vae, own, dtype, source)


def own_vae_settings(folder: Path) -> SettingsDict:
    """The settings of the VAE that a model in a folder has; none where it has none.

    Raises:
        CheckpointError: they cannot be read.
    """
    config = folder / _PART / "config.json"
    return read_json_object(config, "the settings of a VAE") if config.is_file() else {}


def locate_vae(name: str | os.PathLike[str]) -> Path:
    """The file of a VAE, or the folder that its settings are in.

    Raises:
        CheckpointError: there is none, here or on the hub.
    """
    try:
        path = locate_weights(name)
    except CheckpointError:
        if not isinstance(name, str) or name.count("/") != 1:
            raise
        path = locate_weights(f"{name}/{_PART}")  # the repository of a whole model
    if not path.exists():
        raise CheckpointError(f"There is no VAE {name}: no such file or folder here.")
    return path / _PART if not (path / "config.json").is_file() and (path / _PART).is_dir() else path


def _read_folder(folder: Path, dtype: torch.dtype | None) -> AutoencoderKL:
    config = folder / "config.json"
    if config.is_file():
        found = read_json_object(config, "the settings of a VAE").get("_class_name")
        if what := _OTHERS.get(str(found)):
            raise CheckpointError(f"{folder} holds {what}; needed is an AutoencoderKL.")
    return load_folder(AutoencoderKL.from_pretrained, folder, "AutoencoderKL", {"torch_dtype": dtype})


def _check_latents(vae: AutoencoderKL, expected: SettingsView, source: str) -> None:
    scale = vae.config["scaling_factor"]
    if not math.isclose(scale, expected["scaling_factor"], rel_tol=1e-3):
        raise ConfigError(
            f"{source} multiplies latents with {scale:g}, and this model's are multiplied with "
            f"{expected['scaling_factor']:g}: it is the VAE of another family. Use one for this model."
        )
    sizes = [
        2 ** (len(each["block_out_channels"]) - 1) for each in (vae.config, expected) if "block_out_channels" in each
    ]
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"{source} has one latent for {sizes[0]}x{sizes[0]} pixels, and this model's own VAE one for "
            f"{sizes[1]}x{sizes[1]}. Use one for this model."
        )


def _require_image_vae(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    halves = {half: any(key.startswith(f"{half}.conv_in.") for key in own) for half in ("encoder", "decoder")}
    if all(halves.values()):
        if any(key.startswith("encoder.conv_in.") and value.ndim == 5 for key, value in own.items()):
            raise CheckpointError(f"{source} is a VAE for videos, not for pictures; needed is one of Stable Diffusion.")
        return
    if any(halves.values()):
        present, lacking = sorted(halves, key=lambda half: not halves[half])
        raise CheckpointError(f"{source} is half a VAE: it has the {present} and no {lacking}. Get the whole one.")
    if own and all(_TAESD.match(key) for key in own):
        raise CheckpointError(f"{source} is {_OTHERS['AutoencoderTiny']}; needed is a VAE of Stable Diffusion.")
    require_kind(state, "vae", source)
    raise CheckpointError(f"{source} is no VAE that is known here (its keys: {listed(list(own))}).")


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
