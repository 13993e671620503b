"""Image models in one file, as they are shared: the U-Net, with or without VAE and text encoders.

Names are translated by diffusers. Settings are read from the shapes, so nothing is fetched to read a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints.detect import detect_weights
from muybridge.checkpoints.image_layouts import AVERAGED_PREFIX, UNET_PREFIX, unified_unet
from muybridge.checkpoints.ldm_configs import clip_settings, open_clip_settings, unet_settings
from muybridge.checkpoints.translated import filled
from muybridge.checkpoints.unet_kinds import require_noise_alone
from muybridge.checkpoints.vae_files import PREFIXES as VAE_PREFIXES
from muybridge.checkpoints.vae_files import SD15_SCALE, SDXL_SCALE, vae_from_weights
from muybridge.errors import CheckpointError, ConfigError
from muybridge.weights.files import read_weights
from muybridge.weights.names import listed
from muybridge.weights.precision import Precision

_OPEN_CLIP = "conditioner.embedders.1.model."
_EMA_KEYS = 100  # as diffusers counts them before it believes that there are averaged weights


@dataclass(frozen=True)
class BaseModel:
    """The networks that a single file holds; None where it lacks one. A tokenizer is never in it.

    Attributes:
        variant: "base-sd15" or "base-sdxl".
        unet: without motion modules.
        vae: in float32 for SDXL, whose VAE overflows in half precision, unless the file's own precision was asked for.
        text_encoder: CLIP ViT-L.
        text_encoder_2: of SDXL.
    """

    variant: str
    unet: UNet3DConditionModel
    vae: AutoencoderKL | None = None
    text_encoder: CLIPTextModel | None = None
    text_encoder_2: CLIPTextModelWithProjection | None = None

    def components(self) -> dict[str, nn.Module]:
        """What there is, by the names that pipelines use."""
        parts = {
            "unet": self.unet,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
        }
        return {name: part for name, part in parts.items() if part is not None}


def read_base_model(
    path: str | os.PathLike[str], *, dtype: torch.dtype | None = torch.float32, averaged: bool = False
) -> BaseModel:
    """Read a single file of Stable Diffusion 1.x or XL, safetensors or a pickle, wrapped in `state_dict` or not.

    The U-Net may also be all there is, without its prefix or in diffusers' names, and its averaged (EMA) weights may be
    the only ones; these are then taken.

    Args:
        path: the file.
        dtype: of the networks, whatever the file has; None keeps every weight as it is stored.
        averaged: take the averaged (EMA) weights of the U-Net, where the file has them beside the plain ones.

    Raises:
        CheckpointError: something else, an inpainting model, Stable Diffusion 2, or weights missing or not finite.
        ConfigError: `averaged` for a file that has no averaged weights.
    """
    path = Path(path)
    state = read_weights(path, precision_of_parts(dtype, averaged))
    return base_model_from_weights(state, str(path), dtype=dtype, averaged=averaged)


def precision_of_parts(dtype: torch.dtype | None, averaged: bool = False) -> Precision:
    """How `read_weights` reads a single file for `base_model_from_weights`, which then has nothing to convert.

    Weights that are not used stay as they are stored, and where that is cheap are not read.
    """
    if dtype is None:
        return None

    def precision(state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
        names = {key: key.removeprefix("module.") for key in state}
        plain = {name: state[key] for key, name in names.items()}
        left_out = () if averaged or unified_unet(plain)[1] == "averaged" else AVERAGED_PREFIX
        precise = VAE_PREFIXES if detect_weights(plain).variant == "base-sdxl" else ()
        return {
            key: torch.float32 if name.startswith(precise) else dtype
            for key, name in names.items()
            if not name.startswith(left_out)
        }

    return precision


def base_model_from_weights(
    weights: Mapping[str, Tensor], source: str, *, dtype: torch.dtype | None = torch.float32, averaged: bool = False
) -> BaseModel:
    """The networks in what a single file holds; without `dtype` they share its tensors.

    Args:
        weights: all keys of the file.
        source: its name, for messages.
        dtype: as of `read_base_model`.
        averaged: as of `read_base_model`.

    Raises:
        MuybridgeError: as of `read_base_model`.
    """
    state = {key.removeprefix("module."): value for key, value in weights.items()}
    found = detect_weights(state)
    if found.variant not in ("base-sd15", "base-sdxl"):
        raise CheckpointError(
            f"{source} is {found.variant} ({found.kind}), not a single file of Stable Diffusion 1.x or XL."
        )
    state, layout = unified_unet(state)
    if layout == "diffusers" and (foreign := [key for key in state if not key.startswith(UNET_PREFIX)]):
        raise CheckpointError(
            f"{source} is a U-Net in diffusers' names with weights that Stable Diffusion's does not have: "
            f"{listed(foreign)}. Use the plain model."
        )
    averaged = averaged and layout != "averaged"  # which then are all there is
    is_sdxl = found.variant == "base-sdxl"
    projection = state.get(_OPEN_CLIP + "text_projection")
    unet = _read_unet(state, is_sdxl, None if projection is None else projection.shape[1], averaged, dtype, source)
    return BaseModel(
        found.variant,
        unet,
        _read_vae(state, is_sdxl, torch.float32 if is_sdxl and dtype is not None else dtype, source),
        _read_clip(state, dtype, source),
        _read_open_clip(state, dtype, source),
    )


def _read_unet(
    state: dict[str, Tensor],
    is_sdxl: bool,
    text_width: int | None,
    averaged: bool,
    dtype: torch.dtype | None,
    source: str,
) -> UNet3DConditionModel:
    if averaged and sum(key.startswith(AVERAGED_PREFIX) for key in state) <= _EMA_KEYS:
        raise ConfigError(f"{source} has no averaged (EMA) weights; leave `averaged` out.")
    settings = unet_settings(_below(state, UNET_PREFIX), is_sdxl, text_width)
    require_noise_alone(settings, source)
    wanted = {key: value for key, value in state.items() if averaged or not key.startswith(AVERAGED_PREFIX)}
    translated = convert_ldm_unet_checkpoint(wanted, settings, extract_ema=averaged)
    with init_empty_weights():
        unet = UNet2DConditionModel(**settings)
    return UNet3DConditionModel.from_unet2d(filled(unet, translated, dtype, source))


def _read_vae(state: dict[str, Tensor], is_sdxl: bool, dtype: torch.dtype | None, source: str) -> AutoencoderKL | None:
    if not any(key.startswith(VAE_PREFIXES) for key in state):
        return None
    return vae_from_weights(state, source, dtype, scale=SDXL_SCALE if is_sdxl else SD15_SCALE, is_sdxl=is_sdxl)


def _read_clip(state: dict[str, Tensor], dtype: torch.dtype | None, source: str) -> CLIPTextModel | None:
    found = convert_ldm_clip_checkpoint(state)
    own = {key.removeprefix("text_model."): value for key, value in found.items() if not _is_left_over(key)}
    if not own:
        return None
    with init_empty_weights():
        encoder = CLIPTextModel(CLIPTextConfig(**clip_settings(own)))
    return filled(encoder, own, dtype, source)


def _read_open_clip(
    state: dict[str, Tensor], dtype: torch.dtype | None, source: str
) -> CLIPTextModelWithProjection | None:
    own = _below(state, _OPEN_CLIP)
    if not own:
        return None
    with init_empty_weights():
        encoder = CLIPTextModelWithProjection(CLIPTextConfig(**open_clip_settings(own)))
    return filled(encoder, convert_open_clip_checkpoint(encoder, state, prefix=_OPEN_CLIP), dtype, source)


def _is_left_over(key: str) -> bool:
    # Positions that older programs saved as if they were weights, and a number that only training uses.
    return key.endswith(("position_ids", "logit_scale"))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
