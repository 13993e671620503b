"""The networks of an AnimateDiff without their weights: of a folder, of a single file, and of what comes with them."""

from __future__ import annotations

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
from muybridge.checkpoints.ldm_configs import PUBLISHED_CLIP, PUBLISHED_OPEN_CLIP, PUBLISHED_VAE
from muybridge.checkpoints.locate import locate_model, locate_weights
from muybridge.checkpoints.motion_files import read_motion_config, sites_in_config
from muybridge.checkpoints.parts import class_of_part, part_folder, unet_settings
from muybridge.checkpoints.prediction import without_marks
from muybridge.checkpoints.unet_kinds import unet_kind
from muybridge.checkpoints.vae_files import (
    SD15_SCALE,
    SDXL_SCALE,
    locate_vae,
    own_vae_settings,
    vae_from_weights,
)
from muybridge.motion import MotionAdapter, MotionSite, TemporalConfig
from muybridge.motion.reading import plan_motion
from muybridge.pipelines.animatediff.capabilities import USUAL_FRAMES
from muybridge.pipelines.family import Wishes
from muybridge.pipelines.skeleton import (
    Skeleton,
    Weights,
    default_dtype,
    in_default_dtype,
    made,
    read_outlines,
    settings_of,
    skeleton_parts,
)
from muybridge.types import SettingsDict, VideoShape

_SECOND_TEXT_ENCODER = "conditioner.embedders.1.model.text_projection"


def skeleton(wishes: Wishes) -> Skeleton:
    """Of a folder or a single file, with what is put into it.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    # Files are read here, since under a `FakeTensorMode` they cannot be.
    place, choice = wishes.place, wishes.choice
    beside = _makers_beside(wishes)
    if place.is_file():
        outlines = read_outlines(place)
        is_sdxl = _SECOND_TEXT_ENCODER in outlines
        vae = None if choice.vae is None else _other_vae(choice.vae, is_sdxl)

        def of_file(dtype: torch.dtype, device: str) -> dict[str, nn.Module]:
            parts = _of_file(outlines, choice.model, dtype, choice.parts_from, vae)
            return parts | _made(beside, dtype, device)

        side = 1024 if is_sdxl else 512
        return Skeleton(of_file, VideoShape(USUAL_FRAMES, side, side), is_file=True)
    makers = part_makers(place)
    vae = None if choice.vae is None else _other_vae(choice.vae, unet_kind(unet_settings(place)) == "sdxl")
    if vae is not None:
        makers["vae"] = lambda _: vae(torch.get_default_dtype())
    return Skeleton(
        lambda dtype, device: skeleton_parts(place, makers, dtype, device) | _made(beside, dtype, device),
        _usual_shape(place),
    )


def _made(makers: Mapping[str, Callable[[], nn.Module]], dtype: torch.dtype, device: str) -> dict[str, nn.Module]:
    with torch.device(device), default_dtype(dtype):
        return {name: make().eval() for name, make in makers.items()}


def _makers_beside(wishes: Wishes) -> dict[str, Callable[[], nn.Module]]:
    """What makes each network that comes with the model, by the name of its part."""
    choice, makers = wishes.choice, {}
    if choice.motion_adapter is not None:
        adapter = _adapter_settings(choice.motion_adapter, choice.motion_variant)
        makers["motion_adapter"] = lambda: MotionAdapter(**adapter)
    files = {_PARTS_OF_ROLES[role]: path for role, path in choice.networks.items() if role in _PARTS_OF_ROLES}
    files |= {f"{number}_control": path for number, path in enumerate(wishes.controls)}
    for name, path in files.items():
        own = locate_weights(path, beside="image_encoder" if name == "image_prompt" else None)
        makers[name] = _weights(own)
        if name == "image_prompt" and "image_encoder" not in files and (own.parent / "image_encoder").is_dir():
            makers["image_encoder"] = _weights(own.parent / "image_encoder")
    return makers


def _weights(path: Path) -> Callable[[], nn.Module]:
    outlines = read_outlines(path)
    return lambda: Weights(outlines)


def _other_vae(name: str, is_sdxl: bool) -> Callable[[torch.dtype], nn.Module]:
    """What makes a VAE that is used instead of the model's own, in a precision."""
    path = locate_vae(name)
    if path.is_dir():
        return lambda _: _vae_of(path, is_sdxl)
    outlines, scale = read_outlines(path), SDXL_SCALE if is_sdxl else SD15_SCALE

    def make(dtype: torch.dtype) -> nn.Module:
        precise = torch.float32 if is_sdxl else dtype
        vae = vae_from_weights(outlines, str(path), precise, scale=scale, is_sdxl=is_sdxl)
        return vae if torch.empty(0).is_meta else vae.to_empty(device=torch.get_default_device())

    return make


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
    outlines: Mapping[str, Tensor],
    source: str,
    dtype: torch.dtype,
    parts_from: str | None,
    vae: Callable[[torch.dtype], nn.Module] | None,
) -> dict[str, nn.Module]:
    """Build every network of an image model in one file, on the meta device.

    Args:
        outlines: what `read_outlines` gave of it.
        source: its name, for messages.
        dtype: of the weights that are not there.
        parts_from: a folder or hub id with what the file lacks; without it, that is what is published.
        vae: what makes the VAE, where it is not the file's own.

    Raises:
        CheckpointError: no such image model.
    """
    base = base_model_from_weights(without_marks(outlines), source, dtype=dtype)
    is_sdxl = base.variant == "base-sdxl"
    present = base.components()
    with torch.device("meta"), default_dtype(dtype):
        if vae is not None:
            present["vae"] = vae(dtype).eval()
        needed = ["vae", "text_encoder", *(["text_encoder_2"] if is_sdxl else [])]
        if lacking := [name for name in needed if name not in present]:
            folder = None if parts_from is None else locate_model(parts_from, lacking)
            present |= {
                name: (_published(name, is_sdxl) if folder is None else _ALL[name](part_folder(folder, name))).eval()
                for name in lacking
            }
    return present


def _published(name: str, is_sdxl: bool) -> nn.Module:
    """A network as it is published with Stable Diffusion 1.5 or XL."""
    if name == "vae":
        with default_dtype(torch.float32 if is_sdxl else torch.get_default_dtype()):
            return AutoencoderKL(**PUBLISHED_VAE)
    if name == "text_encoder":
        return CLIPTextModel(in_default_dtype(CLIPTextConfig(**PUBLISHED_CLIP)))
    return CLIPTextModelWithProjection(in_default_dtype(CLIPTextConfig(**PUBLISHED_OPEN_CLIP)))


def _adapter_settings(path: str, variant: str | None = None) -> SettingsDict:
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
    return _vae_of(path, (path.parent / "text_encoder_2").is_dir())


def _vae_of(path: Path, is_sdxl: bool) -> nn.Module:
    settings = settings_of(path)
    # Stable Diffusion XL's rests in the precision asked for, and works in float32.
    precise = settings.get("force_upcast", True) and is_sdxl
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
_PARTS_OF_ROLES = {
    "keyframes": "keyframe_control",
    "sketches": "sketch_control",
    "image_prompt": "image_prompt",
    "image_encoder": "image_encoder",
}
"""Networks that a model is given, by what they are for."""
