"""The parts of an EasyAnimate folder: as published, or as this package writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import is_published
from muybridge.checkpoints import parts
from muybridge.checkpoints.locate import locate_model, locate_weights
from muybridge.errors import CheckpointError, ConfigError
from muybridge.files.json_settings import read_json_object
from muybridge.pipelines.family import Recognised
from muybridge.types import SettingsDict, SettingsView, VideoShape
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit.folder import read_settings
from muybridge.weights.loading import Whole, load_folder

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection, T5EncoderModel

_CLASS_NAME = "EasyAnimatePipeline"
PARTS = ("vae", "text_encoder", "tokenizer", "transformer", "scheduler", "image_encoder", "image_processor")
_SETTINGS = (
    "default_size",
    "default_num_frames",
    "default_steps",
    "default_guidance",
    "max_tokens",
    "clean_captions",
    "known_frames",
    "profile",
)
USUAL_SIZE, USUAL_FRAMES = (384, 672), 144
"""Height, width and frames of a model that does not say."""
_LATER = frozenset({"EasyAnimateTransformer3DModel"})
"""Transformers of EasyAnimate's later versions, in its own folders and in diffusers'."""
_CLIP = Whole("CLIPModel", ("text_", "logit_scale"))
"""What the published folder of the image encoder holds; its text tower is not wanted."""
_DEFAULT_SIZES = {512: (384, 672), 768: (576, 1008), 960: (720, 1248)}
"""Height and width that a published model was shown at, by the base resolution in the name of its folder."""


def is_published_folder(folder: Path) -> bool:
    """Whether a folder holds EasyAnimate's own transformer, whatever its `model_index.json` says."""
    path = folder / "transformer" / "config.json"
    try:
        return is_published(read_json_object(path, "the settings of a transformer"))
    except CheckpointError:
        return False


def recognised_folder(folder: Path, index: SettingsView) -> Recognised | None:
    """An EasyAnimate, as published or as this package writes it; None for other families."""
    if (later := _later(folder)) is not None:
        return Recognised("pipeline", "easyanimate-v5", _CLASS_NAME, notes=(later,))
    if is_published_folder(folder) or index.get("_class_name") == _CLASS_NAME:
        return Recognised("pipeline", "easyanimate", _CLASS_NAME)
    return None


def refuse_later(folder: Path) -> None:
    """Refuse a version of EasyAnimate after V3, whose networks are others.

    Raises:
        CheckpointError: it is one.
    """
    if (later := _later(folder)) is not None:
        raise CheckpointError(f"{folder}: {later}.")


def _later(folder: Path) -> str | None:
    found = parts.class_of_part(folder, "transformer")
    if found not in _LATER:
        return None
    return f"EasyAnimate V5 or V5.1 ({found}) has other networks than V3 and V2, which are the ones that are supported"


def load_parts(model: str | os.PathLike[str], dtype: torch.dtype, components: SettingsView) -> SettingsDict:
    """Everything that `EasyAnimatePipeline` is made of; what `components` has is not loaded.

    Raises:
        CheckpointError: a part is missing, damaged, or does not fit its config.
        ConfigError: a component that is not a part.
    """
    if unknown := sorted(components.keys() - set(PARTS)):
        raise ConfigError(f"{', '.join(unknown)} is no part of this pipeline; its parts: {', '.join(PARTS)}.")
    folder = locate_model(model)
    refuse_later(folder)
    published = is_published_folder(folder)
    index = {} if published else parts.read_model_index(folder)
    loaders: dict[str, Callable[[], Any]] = {
        "vae": lambda: AutoencoderKLMagvit.from_pretrained(parts.part_folder(folder, "vae"), torch_dtype=dtype),
        "text_encoder": lambda: _load_t5(folder, dtype),
        "tokenizer": lambda: _load_tokenizer(folder, index),
        "transformer": lambda: Transformer3DModel.from_pretrained(
            parts.part_folder(folder, "transformer"), torch_dtype=dtype
        ),
        "scheduler": lambda: _load_scheduler(folder, index),
    }
    if (folder / "image_encoder").is_dir():
        loaders["image_encoder"] = lambda: _load_image_encoder(folder, dtype)
        loaders["image_processor"] = lambda: _load_image_processor(folder)
    loaded = {name: components[name] if name in components else load() for name, load in loaders.items()}
    settings = {name: index[name] for name in _SETTINGS if name in index}
    if published:
        settings["default_size"] = _DEFAULT_SIZES.get(_base_resolution(folder) or 0)
    return {**components, **loaded, **settings}


def usual_shape(folder: Path) -> VideoShape:
    """The video that the model in a folder makes by default.

    Raises:
        CheckpointError: what the folder says of its parts cannot be read.
    """
    if is_published_folder(folder):
        size, frames = _DEFAULT_SIZES.get(_base_resolution(folder) or 0), None
    else:
        index = parts.read_model_index(folder)
        size, frames = index.get("default_size"), index.get("default_num_frames")
    return VideoShape(frames or USUAL_FRAMES, *(size or USUAL_SIZE))


def usual_profile(folder: Path) -> str:
    """The numeric profile of a call that names none. Raises CheckpointError as `usual_shape`."""
    return "reference" if is_published_folder(folder) else parts.read_model_index(folder).get("profile", "reference")


def locate_own_vae(name: str | os.PathLike[str]) -> Path:
    """The folder of a VAE to use instead of the one in an EasyAnimate folder, as of `load_own_vae`.

    Raises:
        CheckpointError: there is none.
    """
    path = locate_weights(name)
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file; the VAE of an EasyAnimate is a folder, with the settings that no file tells."
        )
    return path / "vae" if not (path / "config.json").is_file() and (path / "vae").is_dir() else path


def load_own_vae(name: str | os.PathLike[str], model: Path, dtype: torch.dtype) -> AutoencoderKLMagvit:
    """Read a VAE to use instead of the one in an EasyAnimate folder.

    Args:
        name: the folder of one, such as a training of its decoder leaves, here or on the hub; or, here, of a model that
            has one in `vae`.
        model: the folder of the model.
        dtype: of the weights.

    Raises:
        CheckpointError: missing, damaged, or a VAE of another kind.
        ConfigError: one whose latents are others than those of the model.
    """
    folder = locate_own_vae(name)
    found = AutoencoderKLMagvit.from_pretrained(folder, torch_dtype=dtype)
    with torch.device("meta"):
        own = AutoencoderKLMagvit(**read_settings(AutoencoderKLMagvit, parts.part_folder(model, "vae")))
    for what in ("latent channels", "spatial factor", "frame multiple"):
        has, needed = (_latents(vae)[what] for vae in (found, own))
        if has != needed:
            raise ConfigError(f"{folder} has {what} {has}, and {model} was trained on {needed}. Use a VAE made for it.")
    return found


def _latents(vae: AutoencoderKLMagvit) -> dict[str, int]:
    return {
        "latent channels": vae.config["latent_channels"],
        "spatial factor": vae.spatial_factor,
        "frame multiple": vae.frame_multiple,
    }


def _base_resolution(folder: Path) -> int | None:
    # Nothing inside a published folder says it; the networks are the same.
    match = re.search(r"(512|768|960)x\1", folder.resolve().name)
    return int(match.group(1)) if match else None


def _load_t5(folder: Path, dtype: torch.dtype) -> T5EncoderModel:
    from transformers import T5EncoderModel  # slow to import

    path = parts.part_folder(folder, "text_encoder")
    return load_folder(T5EncoderModel.from_pretrained, path, "T5EncoderModel", {"dtype": dtype})


def _load_tokenizer(folder: Path, index: SettingsView) -> Any:
    if index:
        return parts.load_tokenizer(folder, index)
    from transformers import T5Tokenizer

    path = parts.part_folder(folder, "tokenizer")
    try:
        return T5Tokenizer.from_pretrained(path)
    except Exception as error:  # a damaged tokenizer is a bare Exception of the tokenizers library
        raise CheckpointError(
            f"The T5 tokenizer cannot be loaded from {path}: a file of it is missing or damaged. Get the folder again."
        ) from error


def _load_scheduler(folder: Path, index: SettingsView) -> Any:
    if index:
        return parts.load_scheduler(folder, index)
    from diffusers import EulerDiscreteScheduler

    # The published file has other settings than the model was trained with; the original does not read it either.
    return EulerDiscreteScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", steps_offset=1
    )


def _load_image_encoder(folder: Path, dtype: torch.dtype) -> CLIPVisionModelWithProjection:
    path = parts.part_folder(folder, "image_encoder")
    from transformers import CLIPVisionModelWithProjection  # likewise

    loader = CLIPVisionModelWithProjection.from_pretrained
    return load_folder(loader, path, "CLIPVisionModelWithProjection", {"dtype": dtype}, _CLIP)


def _load_image_processor(folder: Path) -> Any:
    from transformers import CLIPImageProcessorPil

    path = folder / "image_encoder"
    if not (path / "preprocessor_config.json").is_file():
        path = folder / "image_processor"
    try:
        return CLIPImageProcessorPil.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} has no preprocessor_config.json that describes how pictures are prepared. Get the folder again."
        ) from error
