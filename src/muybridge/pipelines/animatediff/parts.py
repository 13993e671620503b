"""The parts of an AnimateDiff pipeline: read from a folder, and checked against each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from muybridge.checkpoints import parts
from muybridge.errors import ConfigError
from muybridge.files.json_settings import read_json_object
from muybridge.types import SettingsView

if TYPE_CHECKING:  # a look at a folder takes none of these, and they are slow to import
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from muybridge.backbones.unet import UNet3DConditionModel

_NUM_SIZES = 6
_CONTROL = "controlnet"
_DIFFUSERS_UNET = "UNetMotionModel"
_DIFFUSERS_CONTROL = "SparseControlNetModel"


def part_loaders(folder: Path, index: SettingsView, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """For each part that the folder has, what reads it.

    Args:
        folder: of a pipeline of this package, or of Stable Diffusion 1.5 or XL.
        index: its `model_index.json`.
        dtype: of all networks.
    """
    from muybridge.checkpoints.text_pair import load_second_text_encoder, load_second_tokenizer

    loaders: dict[str, Callable[[], Any]] = {
        "vae": lambda: parts.load_vae(folder, dtype),
        "text_encoder": lambda: parts.load_text_encoder(folder, dtype),
        "tokenizer": lambda: parts.load_tokenizer(folder, index),
        "unet": lambda: parts.load_unet(folder, dtype),
        "scheduler": lambda: parts.load_scheduler(folder, index),
    }
    optional: dict[str, Callable[[], Any]] = {
        "text_encoder_2": lambda: load_second_text_encoder(folder, dtype),
        "tokenizer_2": lambda: load_second_tokenizer(folder, index),
        "motion_adapter": lambda: parts.load_motion_adapter(folder, dtype),
    }
    if parts.class_of_part(folder, "unet") == _DIFFUSERS_UNET:  # which holds the modules of its adapter
        del optional["motion_adapter"]
    for name in ("keyframe_control", "sketch_control"):
        optional[name] = partial(_load_sparse_control, folder, name, dtype)
    present = {name: load for name, load in optional.items() if index.get(name) not in (None, [None, None])}
    return {**loaders, **present, **_diffusers_control(folder, dtype)}


def has_motion(folder: Path, index: SettingsView) -> bool:
    """Whether the model in a folder has motion modules of its own, in the U-Net or beside it."""
    beside = index.get("motion_adapter") not in (None, [None, None])
    return beside or parts.class_of_part(folder, "unet") == _DIFFUSERS_UNET


def _diffusers_control(folder: Path, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """What reads the network in `controlnet`, where pipelines of diffusers have one: a SparseCtrl under our name."""
    name = parts.class_of_part(folder, _CONTROL)
    if name == _DIFFUSERS_CONTROL:
        settings = read_json_object(folder / _CONTROL / "config.json", "the settings of a SparseCtrl")
        is_rgb = settings.get("use_simplified_condition_embedding", True)
        load = partial(_load_sparse_control, folder, _CONTROL, dtype)
        return {"keyframe_control" if is_rgb else "sketch_control": load}
    if (folder / _CONTROL).is_dir():
        warnings.warn(
            f"The ControlNet in {folder / _CONTROL} is no part of the pipeline here: name it, and what it is shown, "
            "with each video, as in --control FOLDER=VIDEO or controls of the call.",
            stacklevel=2,
        )
    return {}


def check_channels(unet: UNet3DConditionModel, vae: AutoencoderKL) -> None:
    """Whether the U-Net takes and gives the latents that the VAE makes and reads, and nothing besides.

    Raises:
        ConfigError: otherwise.
    """
    channels = vae.config["latent_channels"]
    taken, given = unet.config["in_channels"], unet.config["out_channels"]
    if (taken, given) != (channels, channels):
        raise ConfigError(
            f"The VAE has latents of {channels} channels, and this U-Net takes {taken} and gives {given}. Use the VAE "
            "it was trained with, and no U-Net that takes more than noise, such as one for inpainting."
        )


def check_text_encoders(
    unet: UNet3DConditionModel,
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModelWithProjection | None,
    tokenizer_2: object | None,
) -> None:
    """Whether these encoders tell the U-Net what it has to be told; Stable Diffusion XL's needs two.

    Raises:
        ConfigError: otherwise.
    """
    from muybridge.backbones.unet.config import UNetConfig

    config = UNetConfig.from_keywords(unet.config)
    if config.addition is None:
        if text_encoder_2 is not None or tokenizer_2 is not None:
            raise ConfigError(
                "text_encoder_2 and tokenizer_2 are parts of Stable Diffusion XL; this U-Net is of another kind."
            )
        width = text_encoder.config.hidden_size
        if width != config.cross_attention_dim:
            raise ConfigError(
                f"The text encoder gives states {width} wide; this U-Net takes {config.cross_attention_dim}. Use the "
                "one it was trained with."
            )
        return
    if text_encoder_2 is None or tokenizer_2 is None:
        raise ConfigError(
            "This U-Net is of Stable Diffusion XL, which has two: give text_encoder_2 and tokenizer_2 too."
        )
    widths = (text_encoder.config.hidden_size, text_encoder_2.config.hidden_size)
    if sum(widths) != config.cross_attention_dim:
        raise ConfigError(
            f"The text encoders give states {widths[0]} and {widths[1]} wide, together {sum(widths)}; this U-Net takes "
            f"{config.cross_attention_dim}."
        )
    wanted = config.addition.input_width - _NUM_SIZES * config.addition.time_width
    if text_encoder_2.config.projection_dim != wanted:
        raise ConfigError(
            f"The second text encoder gives a vector {text_encoder_2.config.projection_dim} wide; this U-Net takes one "
            f"of {wanted}."
        )


def refuse_on_sdxl(is_sdxl: bool, **wishes: object) -> None:
    """Refuse what is made for Stable Diffusion 1.5 alone.

    Args:
        is_sdxl: whether the pipeline is Stable Diffusion XL.
        wishes: by name; those that are None or empty are not wished for.

    Raises:
        ConfigError: names the first.
    """
    given = [name for name, wish in wishes.items() if wish]
    if is_sdxl and given:
        what = "ControlNets are" if given[0] == "controls" else "SparseCtrl is"
        raise ConfigError(
            f"{given[0]}: {what} supported with Stable Diffusion 1.5 only, and this model is Stable Diffusion XL. "
            "Leave that out, or use a model of Stable Diffusion 1.5."
        )


def _load_sparse_control(folder: Path, name: str, dtype: torch.dtype) -> Any:
    from muybridge.conditioning.sparse_control import read_sparse_control

    return read_sparse_control(parts.part_folder(folder, name), dtype)
