"""Reading a folder with the VAE: published by EasyAnimate, left by its training, or saved by this package."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from muybridge.errors import CheckpointError, ConfigError
from muybridge.files.json_settings import read_json_object
from muybridge.types import SettingsDict
from muybridge.vae.magvit.config import FIXED_SETTINGS
from muybridge.weights.files import read_weights
from muybridge.weights.folder_files import search_folder_files
from muybridge.weights.loading import load_strictly

ModelT = TypeVar("ModelT", bound=ModelMixin)

CLASS_NAMES = ("AutoencoderKLMagvit", "AutoencoderKL")
"""What `_class_name` may be; files from before November 2024 have the second."""

_TRAINING_LEFTOVERS = "loss."
_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
_STANDARD_NAME = "diffusion_pytorch_model"
_READING_OPTIONS = {
    "low_cpu_mem_usage",
    "use_safetensors",
    "use_flashpack",
    "disable_mmap",
    "dduf_entries",
    "local_files_only",
    "cache_dir",
    "revision",
    "token",
    "force_download",
    "proxies",
}
"""How diffusers reads a file, or where from: of no consequence for a local folder read whole."""


def load_folder_of(
    model_class: type[ModelT],
    folder: str | os.PathLike[str] | None,
    subfolder: str | None = None,
    torch_dtype: torch.dtype | None = None,
    variant: str | None = None,
    **options: object,
) -> ModelT:
    """Build a model from `config.json` and put the weights of the folder in; it is in evaluation mode.

    Args:
        model_class: `AutoencoderKLMagvit` or a subclass of it.
        folder: a local folder.
        subfolder: where in it, for example "vae".
        torch_dtype: of the weights; float32 by default, whatever the file has.
        variant: part of the file's name, such as "fp16".
        **options: diffusers' others, accepted if they are about reading, or None.

    Raises:
        CheckpointError: no such folder, another model, weights missing, left over, of other shapes, or not finite.
        ConfigError: an option that is not known here.
    """
    unknown = sorted(k for k, value in options.items() if k not in _READING_OPTIONS and value is not None)
    if unknown:
        raise ConfigError(f"{model_class.__name__}.from_pretrained has no option {', '.join(unknown)}.")
    path = Path(folder or "") / (subfolder or "")
    if folder is None or not path.is_dir():
        raise CheckpointError(f"There is no folder {path}; give the local folder of a {model_class.__name__}.")
    settings = read_settings(model_class, path)
    try:
        with torch.device("meta"):
            model = model_class(**settings)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path / 'config.json'} does not describe a {model_class.__name__}: {error}") from error
    load_strictly(model, _read_state(path, variant, torch_dtype or torch.float32), str(path), assign=True)
    model.register_to_config(_name_or_path=str(path))
    return model.eval()


def read_settings(model_class: type[ModelMixin], folder: Path) -> SettingsDict:
    """The settings that the model knows; others, such as those of an average of weights, are leftovers."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; it is not the folder of a VAE.")
    config = read_json_object(path, "the settings of a VAE")
    found = config.get("_class_name", CLASS_NAMES[0])
    if found not in CLASS_NAMES:
        raise CheckpointError(f"{folder} holds a {found}, not one of {', '.join(CLASS_NAMES)}.")
    known = signature(model_class.__init__).parameters.keys() | FIXED_SETTINGS.keys()
    return {name: value for name, value in config.items() if name in known}


def _read_state(folder: Path, variant: str | None, dtype: torch.dtype) -> dict[str, Tensor]:
    def precision(state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
        return dict.fromkeys(filter(_is_wanted, state), dtype)

    state: dict[str, Tensor] = {}
    for path in _weight_files(folder, variant):
        state |= {name: value for name, value in read_weights(path, precision).items() if _is_wanted(name)}
    return state


def _is_wanted(name: str) -> bool:
    return not name.startswith(_TRAINING_LEFTOVERS)


def _weight_files(folder: Path, variant: str | None) -> Sequence[Path]:
    if (found := search_folder_files(folder, variant)) is not None:
        return found.files
    # What training leaves has a name of its own.
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(files) != 1 or variant:
        stem = f"{_STANDARD_NAME}.{variant}" if variant else _STANDARD_NAME
        names = ", ".join(path.name for path in files) or "none"
        raise CheckpointError(f"{folder} must hold one weight file, or {stem}.safetensors; it holds {names}.")
    return files
