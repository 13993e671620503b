"""The networks of an AnimateDiff without their weights: of a folder, of a single file, and of what comes with them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.from_diffusers import from_unet_motion_model
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints.base_models import base_model_from_weights
from muybridge.checkpoints.locate import locate_model, locate_weights
from muybridge.checkpoints.motion_files import read_motion_config, sites_in_config
from muybridge.checkpoints.parts import class_of_part, part_folder, unet_settings
from muybridge.checkpoints.prediction import without_marks
from muybridge.checkpoints.vae_files import own_vae_settings
from muybridge.errors import CheckpointError
from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig
from muybridge.motion.reading import plan_motion
from muybridge.pipelines.animatediff.capabilities import USUAL_FRAMES
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.skeleton import (
    Skeleton,
    default_dtype,
    in_default_dtype,
    made,
    read_outlines,
    settings_of,
    skeleton_parts,
)
from muybridge.types import SettingsDict, SettingsView, VideoShape

_SECOND_TEXT_ENCODER = "conditioner.embedders.1.model.text_projection"


def skeleton(wishes: Wishes) -> Skeleton:
    """Of a folder or a single file, with a motion adapter beside it where one is wished for.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    # Files are read here, since under a `FakeTensorMode` they cannot be.
    adapter = None
    if wishes.motion_adapter is not None:
        adapter = _adapter_settings(wishes.motion_adapter, wishes.motion_variant)

    def whole(parts: dict[str, nn.Module], dtype: torch.dtype, device: str) -> dict[str, nn.Module]:
        return parts if adapter is None else {**parts, "motion_adapter": _adapter(adapter, dtype, device)}

    place, name = wishes.place, str(wishes.model)
    if place.is_file():
        outlines = read_outlines(place)
        side = 1024 if _SECOND_TEXT_ENCODER in outlines else 512
        return Skeleton(
            lambda dtype, on: whole(_of_file(outlines, name, dtype, wishes.parts_from), dtype, on),
            VideoShape(USUAL_FRAMES, side, side),
            is_file=True,
        )
    makers = part_makers(place)
    return Skeleton(lambda dtype, on: whole(skeleton_parts(place, makers, dtype, on), dtype, on), _usual_shape(place))


def part_makers(folder: Path) -> dict[str, Callable[[Path], nn.Module]]:
    """What makes each network that a folder has."""
    optional = {name: make for name, make in _OPTIONAL.items() if (folder / name).is_dir()}
    if class_of_part(folder, "unet") == UNetMotionModel.__name__:  # which has the modules of its adapter
        optional.pop("motion_adapter", None)
    return {**_ALWAYS, **optional}


def _usual_shape(folder: Path) -> VideoShape:
    side = unet_settings(folder).get("sample_size")
    levels = own_vae_settings(folder).get("block_out_channels")
    if not isinstance(side, int) or not isinstance(levels, list):
        return VideoShape(USUAL_FRAMES, 512, 512)
    pixels = side * 2 ** (len(levels) - 1)
    return VideoShape(USUAL_FRAMES, pixels, pixels)


def _of_file(
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
        with torch.device("meta"), default_dtype(dtype):
            present |= {name: _ALL[name](part_folder(folder, name)).eval() for name in lacking}
    return present


def _adapter(settings: SettingsView, dtype: torch.dtype, device: str = "meta") -> MotionAdapter:
    """Build what `_adapter_settings` described."""
    with torch.device(device), default_dtype(dtype):
        return MotionAdapter(**settings).eval()


def _adapter_settings(path: str | os.PathLike[str], variant: str | None = None) -> SettingsDict:
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


def _unet(path: Path) -> nn.Module:
    settings = settings_of(path)
    if settings.get("_class_name") == "UNet3DConditionModel":
        return made(UNet3DConditionModel.from_config(settings))
    if settings.get("_class_name") == "UNetMotionModel":
        return from_unet_motion_model(made(UNetMotionModel.from_config(settings)))
    return UNet3DConditionModel.from_unet2d(made(UNet2DConditionModel.from_config(settings)))


def _motion_adapter(path: Path) -> nn.Module:
    config = read_motion_config(path)
    if "modules_by_site" in config:
        return made(MotionAdapter.from_config(config))
    # Of diffusers, whose settings say the widths by level.
    names, widths = sites_in_config(config), config.get("block_out_channels", (320, 640, 1280, 1280))
    heads = config.get("motion_num_attention_heads", 8)
    temporal = TemporalConfig(
        num_heads=heads[0] if isinstance(heads, list) else heads,
        norm_groups=config.get("motion_norm_num_groups", 32),
        trained_frames=config.get("motion_max_seq_length", 32),
    )
    return MotionAdapter.for_sites([MotionSite(name, _width(name, widths)) for name in names], config=temporal)


def _width(site: str, widths: list[int]) -> int:
    place, level, *_ = site.split(".")
    if place == "mid_block":
        return widths[-1]
    return widths[int(level)] if place == "down_blocks" else widths[-1 - int(level)]


def _vae(path: Path) -> nn.Module:
    settings = settings_of(path)
    # Stable Diffusion XL's rests in the precision asked for, and works in float32.
    precise = settings.get("force_upcast", True) and (path.parent / "text_encoder_2").is_dir()
    with default_dtype(torch.float32 if precise else torch.get_default_dtype()):
        return made(AutoencoderKL.from_config(settings))


def _second_text_encoder(path: Path) -> nn.Module:
    return CLIPTextModelWithProjection(in_default_dtype(CLIPTextConfig.from_pretrained(path)))


def _sparse_control(path: Path) -> nn.Module:
    return made(SparseControlModel.from_config(settings_of(path)))


_ALWAYS: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder": lambda path: CLIPTextModel(CLIPTextConfig.from_pretrained(path)),
    "unet": _unet,
    "vae": _vae,
}
_OPTIONAL: dict[str, Callable[[Path], nn.Module]] = {
    "text_encoder_2": _second_text_encoder,
    "motion_adapter": _motion_adapter,
    "keyframe_control": _sparse_control,
    "sketch_control": _sparse_control,
}
_ALL = {**_ALWAYS, **_OPTIONAL}
