"""The networks of a model folder without their weights: shapes and precisions alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import is_published, published_keywords
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.from_diffusers import from_unet_motion_model
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints.base_models import base_model_from_weights
from muybridge.checkpoints.locate import locate_model, locate_weights
from muybridge.checkpoints.motion_files import read_motion_config, sites_in_config
from muybridge.checkpoints.parts import class_of_part, part_folder
from muybridge.checkpoints.prediction import without_marks
from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.motion import MotionAdapter
from muybridge.motion.reading import plan_motion
from muybridge.types import SettingsDict, SettingsView
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit.folder import read_settings
from muybridge.weights.files import read_weights
from muybridge.weights.folder_files import read_folder_weights

ModelT = TypeVar("ModelT", bound=nn.Module)
ConfigT = TypeVar("ConfigT", CLIPTextConfig, CLIPVisionConfig)


def skeleton_parts(folder: Path, family: str, dtype: torch.dtype, device: str = "meta") -> dict[str, nn.Module]:
    """Build every network of a folder from its settings; no weight file is opened, or needs to be there.

    On the meta device they have no numbers. On another they have random ones, or, under a `FakeTensorMode`, none, but
    the kernels of that device.

    Args:
        folder: of a pipeline.
        family: "AnimateDiffPipeline" or "EasyAnimatePipeline".
        dtype: of the weights that are not there.
        device: of them.

    Raises:
        CheckpointError: a part is missing, or its settings do not describe the network that it should be.
    """
    makers = _EASYANIMATE if family == "EasyAnimatePipeline" else _ANIMATEDIFF
    parts: dict[str, nn.Module] = {}
    for name, make in makers.items():
        if name in _OPTIONAL and not (folder / name).is_dir():
            continue
        if name == "motion_adapter" and class_of_part(folder, "unet") == UNetMotionModel.__name__:
            continue  # the U-Net has its modules
        path = part_folder(folder, name)
        try:
            with torch.device(device), _default_dtype(dtype):
                parts[name] = make(path).eval()
        except CheckpointError:
            raise
        except Exception as error:  # whatever a library finds wrong with settings
            raise CheckpointError(
                f"{path / 'config.json'} does not describe a network: it has settings that are not known, or that do "
                "not go together. Get it again."
            ) from error
    return parts


def read_outlines(path: Path) -> dict[str, Tensor]:
    """The names, shapes and precisions of a weight file, or of the files of a folder, as tensors without numbers.

    Raises:
        CheckpointError: it cannot be read.
    """
    reader = read_folder_weights if path.is_dir() else read_weights
    # With a rule that asks for nothing: so pickles too are mapped into memory, and not read.
    return {key: torch.empty_like(value, device="meta") for key, value in reader(path, lambda _: {}).items()}


def skeleton_of_file(
    outlines: Mapping[str, Tensor], source: str, dtype: torch.dtype, parts_from: str | os.PathLike[str] | None
) -> dict[str, nn.Module]:
    """Build every network of an image model in one file, on the meta device.

    Args:
        outlines: what `read_outlines` gave of it.
        source: its name, for messages.
        dtype: of the weights that are not there.
        parts_from: a folder or hub id with what the file lacks.

    Raises:
        CheckpointError: no such image model, or one that lacks a network while `parts_from` is not given.
    """
    base = base_model_from_weights(without_marks(outlines), source, dtype=dtype)
    present = base.components()
    needed = ["vae", "text_encoder", *(["text_encoder_2"] if base.variant == "base-sdxl" else [])]
    if lacking := [name for name in needed if name not in present]:
        if parts_from is None:
            raise CheckpointError(f"{source} has no {' and no '.join(lacking)}; name a folder with parts_from.")
        folder = locate_model(parts_from, lacking)
        with torch.device("meta"), _default_dtype(dtype):
            present |= {name: _ANIMATEDIFF[name](part_folder(folder, name)).eval() for name in lacking}
    return present


def skeleton_adapter(settings: SettingsView, dtype: torch.dtype, device: str = "meta") -> MotionAdapter:
    """Build what `adapter_settings` described, as `skeleton_parts` does the rest."""
    with torch.device(device), _default_dtype(dtype):
        return MotionAdapter(**settings).eval()


def adapter_settings(path: str | os.PathLike[str], variant: str | None = None) -> SettingsDict:
    """What builds a motion adapter without its weights, of any file or folder that `read_motion` reads.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    found, name, expected = locate_weights(path), Path(path).name, None
    if found.is_dir():
        config = read_motion_config(found)
        if "modules_by_site" in config:
            return {key: config[key] for key in ("modules_by_site", "numerics") if key in config}
        expected = sites_in_config(config)
    with warnings.catch_warnings(action="ignore"):  # loading gives them
        plan = plan_motion(read_outlines(found), name, variant=variant, expected=expected)
    return {"modules_by_site": plan.modules_by_site, "numerics": plan.variant.numerics}


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Made in a precision, since fake weights cannot be cast afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _settings(path: Path) -> SettingsDict:
    return read_json_object(path / "config.json", "the settings of a network")


def _unet(path: Path) -> nn.Module:
    settings = _settings(path)
    if settings.get("_class_name") == "UNet3DConditionModel":
        return _one(UNet3DConditionModel.from_config(settings))
    if settings.get("_class_name") == "UNetMotionModel":
        return from_unet_motion_model(_one(UNetMotionModel.from_config(settings)))
    return UNet3DConditionModel.from_unet2d(_one(UNet2DConditionModel.from_config(settings)))


def _transformer(path: Path) -> nn.Module:
    settings = _settings(path)
    if is_published(settings):
        return Transformer3DModel(**published_keywords(settings))
    return _one(Transformer3DModel.from_config(settings))


def _vae(path: Path) -> nn.Module:
    settings = _settings(path)
    # Stable Diffusion XL's rests in the precision asked for, and works in float32.
    precise = settings.get("force_upcast", True) and (path.parent / "text_encoder_2").is_dir()
    with _default_dtype(torch.float32 if precise else torch.get_default_dtype()):
        return _one(AutoencoderKL.from_config(settings))


def _text_pair_encoder(path: Path) -> nn.Module:
    return CLIPTextModelWithProjection(_in_default_dtype(CLIPTextConfig.from_pretrained(path)))


def _image_encoder(path: Path) -> nn.Module:
    return CLIPVisionModelWithProjection(_in_default_dtype(CLIPVisionConfig.from_pretrained(path)))


def _in_default_dtype(config: ConfigT) -> ConfigT:
    """These two make their inner network in the precision that their settings name, if they name one."""
    config.dtype = torch.get_default_dtype()
    return config


def _one(made: ModelT | tuple[ModelT, object]) -> ModelT:
    """`from_config` gives a model, or a model and what it did not use."""
    return made[0] if isinstance(made, tuple) else made


_OPTIONAL = ("motion_adapter", "image_encoder", "text_encoder_2", "keyframe_control", "sketch_control")
_ANIMATEDIFF: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder": lambda path: CLIPTextModel(CLIPTextConfig.from_pretrained(path)),
    "text_encoder_2": _text_pair_encoder,
    "unet": _unet,
    "motion_adapter": lambda path: _one(MotionAdapter.from_config(_settings(path))),
    "keyframe_control": lambda path: _one(SparseControlModel.from_config(_settings(path))),
    "sketch_control": lambda path: _one(SparseControlModel.from_config(_settings(path))),
    "vae": _vae,
}
_EASYANIMATE: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder": lambda path: T5EncoderModel(T5Config.from_pretrained(path)),
    "image_encoder": _image_encoder,
    "transformer": _transformer,
    "vae": lambda path: AutoencoderKLMagvit(**read_settings(AutoencoderKLMagvit, path)),
}
