"""Which motion module a file holds: layout of its names, version, and what cannot be told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from muybridge.motion.variants import hinted_variant

_TABLE = re.compile(r"\.(pos_encoder\.(pe|positional_encoding)|pos_embed\.pe)$")
_LEVEL = re.compile(r"(?:^|\.)(down_blocks|up_blocks|mid_block)(?:\.(\d+))?\.(?:motion_modules|temporal_attentions)\.")
_SDXL_WIDTHS = (320, 640, 1280)
_SD15_WIDTHS = (320, 640, 1280, 1280)
_FRAMES_OF_V1 = 24
_LEVELS_OF_SDXL = 3


class MotionLayout(Enum):
    """Whose names the keys of a motion file have."""

    ORIGINAL = "original"
    DIFFUSERS = "diffusers"
    HOTSHOT = "hotshot-xl"
    MUYBRIDGE = "muybridge"
    NONE = "none"


@dataclass(frozen=True)
class MotionDetection:
    """The version of a motion file; see `checkpoints.detect.Detection` for the fields."""

    variant: str
    candidates: tuple[str, ...]
    decided_by: str
    notes: tuple[str, ...] = ()


def motion_layout(state: Mapping[str, Tensor]) -> MotionLayout:
    """Whose names these are, or `NONE` where there is no motion module among them."""
    if any(re.search(r"(^|\.)temporal_attentions\.\d+\.", key) for key in state):
        return MotionLayout.HOTSHOT
    motion = [key for key in state if re.search(r"(^|\.)motion_modules\.\d+\.", key)]
    if any(".temporal_transformer." in key for key in motion):
        return MotionLayout.ORIGINAL
    if any(re.search(r"\.transformer_blocks\.\d+\.(attn1|norm1|pos_embed)\.", key) for key in motion):
        return MotionLayout.DIFFUSERS
    return MotionLayout.MUYBRIDGE if motion else MotionLayout.NONE


def table_frames(state: Mapping[str, Tensor]) -> int | None:
    """Frames of the shortest position table `[1, frames, width]`, or None where the file has none."""
    lengths = [value.shape[1] for key, value in state.items() if _TABLE.search(key) and value.ndim == 3]
    return min(lengths) if lengths else None


def level_widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Width of each level that has motion modules on the way down, finest first."""
    widths = {}
    for key, value in state.items():
        match = _LEVEL.search(key)
        if match is not None and match.group(1) == "down_blocks" and key.endswith(".norm.weight"):
            widths[int(match.group(2))] = value.numel()
    return tuple(widths[level] for level in sorted(widths))


def variants_with_sites(names: Iterable[str]) -> tuple[str, ...]:
    """The published variants with modules at the sites in these names, the likeliest first."""
    levels, mid = _sites(names)
    if levels and max(levels) == _LEVELS_OF_SDXL - 1:
        return ("animatediff-sdxl", "hotshot-xl")
    return ("animatediff-v2", "animatelcm", "lightning") if mid else ("animatediff-v3", "animatediff-v1")


def detect_motion(state: Mapping[str, Tensor], layout: MotionLayout, name: str = "") -> MotionDetection:
    """Tell the version; `name` only chooses where keys and shapes leave several."""
    notes = _notes(state)
    if unsupported := _relative(state):
        return MotionDetection(unsupported, (unsupported,), "keys and shapes", notes)
    possible = _possible(state, layout, name)
    if len(possible) == 1:
        return MotionDetection(possible[0], possible, "keys and shapes", notes)
    hint = hinted_variant(name)
    if hint in possible:
        others = tuple(each for each in possible if each != hint)
        return MotionDetection(hint, (hint, *others), "file name", notes)
    return MotionDetection(possible[0], possible, "guess", notes)


def _relative(state: Mapping[str, Tensor]) -> str | None:
    if any(key.startswith("img_encoder.") for key in state):
        return "animatelcm-i2v"
    if any(key.split(".")[0] in ("FancyVideo", "fps_embedding", "motion_embedding") for key in state):
        return "fancyvideo"
    entry = state.get("conv_in.weight")
    return "pia" if entry is not None and entry.ndim == 4 and entry.shape[1] == 9 else None


def _possible(state: Mapping[str, Tensor], layout: MotionLayout, name: str) -> tuple[str, ...]:
    """The published variants with these keys and shapes, the likeliest first."""
    if layout is MotionLayout.HOTSHOT:
        return ("hotshot-xl",)
    levels, mid = _sites(state)
    frames = table_frames(state)
    if levels and max(levels) == _LEVELS_OF_SDXL - 1:
        return ("animatediff-sdxl",)
    if mid:
        return _with_mid(state, layout, frames, name)
    if frames is None:
        return ("animatediff-v3", "animatediff-v1")
    return ("animatediff-v1",) if frames <= _FRAMES_OF_V1 else ("animatediff-v3",)


def _sites(names: Iterable[str]) -> tuple[set[int], bool]:
    """Levels of the down path that have modules, and whether there is one in the middle."""
    found = {match.groups() for name in names if (match := _LEVEL.search(name))}
    levels = {int(level) for where, level in found if where == "down_blocks" and level is not None}
    return levels, any(where == "mid_block" for where, _ in found)


def _with_mid(state: Mapping[str, Tensor], layout: MotionLayout, frames: int | None, name: str) -> tuple[str, ...]:
    # The distilled models are v2 with other weights, so only circumstances speak: the published file of AnimateLCM is
    # the one without position tables, and Lightning is the one in diffusers' names, in half precision and not in a
    # folder of diffusers', where files have this name.
    whole_network = "conv_in.weight" in state
    if layout is MotionLayout.ORIGINAL and frames is None and not whole_network:
        return ("animatelcm", "animatediff-v2", "lightning")
    half = all(value.dtype == torch.float16 for key, value in state.items() if "motion_modules." in key)
    bare = bool(name) and name.endswith(".safetensors") and not name.startswith("diffusion_pytorch_model")
    if layout is MotionLayout.DIFFUSERS and half and bare:
        return ("lightning", "animatediff-v2", "animatelcm")
    return ("animatediff-v2",) if whole_network else ("animatediff-v2", "animatelcm", "lightning")


def _notes(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    notes = []
    if "conv_in.weight" in state:
        notes.append("a whole U-Net; the image model's weights in it are not part of the motion module")
    widths = level_widths(state)
    if widths and widths not in (_SD15_WIDTHS, _SDXL_WIDTHS):
        notes.append(f"widths {list(widths)} are those of no published model")
    frames = table_frames(state)
    notes.append("no position tables" if frames is None else f"position tables of {frames} frames")
    return tuple(notes)
