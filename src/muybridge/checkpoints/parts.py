"""The parts of a pipeline folder, each loaded whole or not at all."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import torch

from muybridge.checkpoints.motion_files import read_motion, read_motion_config, sites_in_config
from muybridge.checkpoints.unet_kinds import require_noise_alone
from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.motion import MotionAdapter
from muybridge.motion.detection import variants_with_sites
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.loading import load_folder

if TYPE_CHECKING:  # the networks are slow to import, so that each function brings its own
    from diffusers import AutoencoderKL, SchedulerMixin
    from transformers import CLIPTextModel, PreTrainedTokenizerBase

    from muybridge.backbones.unet import UNet3DConditionModel

PartT = TypeVar("PartT")


def read_model_index(folder: Path) -> SettingsDict:
    """The `model_index.json` of a pipeline folder.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no model_index.json; it is not the folder of a pipeline.")
    return read_json_object(path, "the parts of a pipeline")


def part_folder(folder: Path, name: str) -> Path:
    """The folder of a part.

    Raises:
        CheckpointError: it is missing.
    """
    # A missing folder must not be taken for the name of a repository on the hub.
    if not (folder / name).is_dir():
        raise CheckpointError(
            f"{folder / name} is missing; a pipeline has a folder for each part. Get the model again."
        )
    return folder / name


def load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    """The image VAE in `folder/vae`."""
    from diffusers import AutoencoderKL

    return load_folder(
        AutoencoderKL.from_pretrained, part_folder(folder, "vae"), "AutoencoderKL", {"torch_dtype": dtype}
    )


def load_text_encoder(folder: Path, dtype: torch.dtype) -> CLIPTextModel:
    """The CLIP text encoder in `folder/text_encoder`."""
    from transformers import CLIPTextModel

    path = part_folder(folder, "text_encoder")
    return load_folder(CLIPTextModel.from_pretrained, path, "CLIPTextModel", {"dtype": dtype})


def load_unet(folder: Path, dtype: torch.dtype) -> UNet3DConditionModel:
    """The U-Net in `folder/unet`: an image model or a video model of diffusers', or one saved by this package.

    Raises:
        CheckpointError: missing, damaged, of another class, or one that takes more than noise.
        ConfigError: one with features that are not supported.
    """
    from diffusers import UNet2DConditionModel, UNetMotionModel

    from muybridge.backbones.unet import UNet3DConditionModel, from_unet_motion_model

    path = part_folder(folder, "unet")
    options = {"torch_dtype": dtype}
    name = class_of_part(folder, "unet")
    if name == UNet3DConditionModel.__name__:
        return UNet3DConditionModel.from_pretrained(path, **options)
    require_noise_alone(unet_settings(folder), str(path))
    if name == UNetMotionModel.__name__:
        theirs = load_folder(UNetMotionModel.from_pretrained, path, "UNetMotionModel", options)
        try:
            return from_unet_motion_model(theirs)
        except (RuntimeError, TypeError) as error:  # numbers by level, or layers that ours does not have
            raise CheckpointError(
                f"{path} is built in another way than Stable Diffusion 1.5 or XL with AnimateDiff's motion modules; "
                "not supported. Load the image model, and the motion adapter as motion_adapter."
            ) from error
    return UNet3DConditionModel.from_unet2d(
        load_folder(UNet2DConditionModel.from_pretrained, path, "UNet2DConditionModel", options)
    )


def unet_settings(folder: Path) -> SettingsDict:
    """The settings of the U-Net in `folder/unet`; none where it has no `config.json`, which loading then reports.

    Raises:
        CheckpointError: they cannot be read.
    """
    config = folder / "unet" / "config.json"
    return read_json_object(config, "the settings of a U-Net") if config.is_file() else {}


def class_of_part(folder: Path, name: str) -> str | None:
    """The class that the settings of a part name; None where there is no such part, or they name none.

    Raises:
        CheckpointError: settings that cannot be read.
    """
    config = folder / name / "config.json"
    found = read_json_object(config, f"the settings of {name}").get("_class_name") if config.is_file() else None
    return found if isinstance(found, str) else None


def load_motion_adapter(folder: Path, dtype: torch.dtype) -> MotionAdapter:
    """The motion adapter in `folder/motion_adapter`, of this package or of diffusers."""
    path = part_folder(folder, "motion_adapter")
    config = read_motion_config(path)
    if "modules_by_site" in config:
        return MotionAdapter.from_pretrained(path, torch_dtype=dtype)
    # How it is run, the rest of the folder says; and by whom, diffusers, which pools all its norms in one way.
    variant = variants_with_sites(sites_in_config(config))[0]
    return read_motion(path, dtype=dtype, numerics="diffusers", variant=variant).adapter


def load_tokenizer(folder: Path, index: SettingsView) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder/tokenizer`, of the class that the `model_index.json` names."""
    import transformers
    from transformers import PreTrainedTokenizerBase

    return load_named(transformers, PreTrainedTokenizerBase, folder, "tokenizer", index)


def load_scheduler(folder: Path, index: SettingsView) -> SchedulerMixin:
    """The scheduler in `folder/scheduler`, of the class that the `model_index.json` names."""
    import diffusers
    from diffusers import SchedulerMixin

    return load_named(diffusers, SchedulerMixin, folder, "scheduler", index)


def load_named(library: ModuleType, base: type[PartT], folder: Path, name: str, index: SettingsView) -> PartT:
    """The part in `folder/name`, of the class of `library` that the `model_index.json` names: one that is a `base`."""
    path = part_folder(folder, name)
    entry = index.get(name)
    class_name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    found = getattr(library, class_name, None) if isinstance(class_name, str) else None
    if not isinstance(found, type) or not issubclass(found, base):
        raise CheckpointError(
            f"model_index.json of {folder} must name a {base.__name__} of {library.__name__} for {name}, "
            f"as [library, class]; it has {entry!r}."
        )
    try:
        return found.from_pretrained(path)  # type: ignore[attr-defined]
    except Exception as error:  # a damaged tokenizer is a bare Exception of the tokenizers library
        raise CheckpointError(
            f"{class_name} cannot be loaded from {path}: a file of it is missing or damaged, or from another version "
            "of its library. Get the folder again."
        ) from error
