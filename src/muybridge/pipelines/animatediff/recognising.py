"""Which folders are models of AnimateDiff, and which are image models that become one."""

from __future__ import annotations

from pathlib import Path

from muybridge.checkpoints import parts
from muybridge.checkpoints.unet_kinds import require_noise_alone, unet_kind
from muybridge.errors import CheckpointError
from muybridge.pipelines.animatediff.parts import has_motion
from muybridge.pipelines.family import Recognised
from muybridge.types import SettingsView

_UNETS = ("UNet2DConditionModel", "UNetMotionModel", "UNet3DConditionModel")
_VIDEO_PREFIX = "AnimateDiff"
_VARIANTS = {"StableDiffusionPipeline": "base-sd15", "StableDiffusionXLPipeline": "base-sdxl"}


def recognised_folder(folder: Path, index: SettingsView) -> Recognised | None:
    """What a folder is, decided by its parts, whatever task its class is for; None for other families."""
    name, unet = index.get("_class_name"), parts.class_of_part(folder, "unet")
    if not isinstance(name, str) or unet not in (*_UNETS, None):
        return None
    if unet == "UNet3DConditionModel" and not _is_ours(index):
        return None  # diffusers has another network of that name
    is_known = name in _VARIANTS or name.startswith(_VIDEO_PREFIX)
    if "unet" not in index and not (is_known and unet is None):
        return None
    if name.startswith(_VIDEO_PREFIX) or has_motion(folder, index):
        return Recognised("pipeline", "animatediff", name)
    variant, notes = _image_model(folder, name)
    return Recognised("base-model", variant, name, makes_videos=False, notes=notes)


def _is_ours(index: SettingsView) -> bool:
    entry = index.get("unet")
    return not (isinstance(entry, list) and entry[:1] == ["diffusers"])


def _image_model(folder: Path, name: str) -> tuple[str, tuple[str, ...]]:
    settings = parts.unet_settings(folder)
    if not settings:
        return _VARIANTS.get(name, "unknown"), ()
    variant = f"base-{unet_kind(settings)}"
    try:
        require_noise_alone(settings, "its U-Net")
    except CheckpointError as error:
        return variant, (str(error),)
    return variant, ()
