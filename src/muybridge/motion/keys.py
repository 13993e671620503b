"""Names in AnimateDiff's published motion files, as data, and what a file's names and shapes say about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from muybridge.errors import CheckpointError
from muybridge.motion.contract import ModuleSpec
from muybridge.weights.keymap import KeyMap

ORIGINAL_MOTION_KEYS = KeyMap(
    strip_prefixes=("module.",),
    keep=r"(^|\.)motion_modules\.",
    drop=r"\.pos_encoder\.pe$",
    replace=((r"\.temporal_transformer\.", "."),),
)
"""From the original's names to ours: position tables are computed here, and the wrapper module is not there."""

_BLOCK = r"(motion_modules\.\d+\.transformer_blocks\.\d+)"
DIFFUSERS_MOTION_KEYS = KeyMap(
    keep=r"(^|\.)motion_modules\.",
    drop=r"\.pos_embed\.pe$",
    replace=(
        (_BLOCK + r"\.attn1\.", r"\1.attention_blocks.0."),
        (_BLOCK + r"\.attn2\.", r"\1.attention_blocks.1."),
        (_BLOCK + r"\.norm1\.", r"\1.norms.0."),
        (_BLOCK + r"\.norm2\.", r"\1.norms.1."),
        (_BLOCK + r"\.norm3\.", r"\1.ff_norm."),
    ),
)
"""From the names of diffusers' `MotionAdapter` and `UNetMotionModel` to ours."""

_SITE = re.compile(r"^(.*?motion_modules\.\d+)\.")
_TABLE_NDIM = 3  # [1, frames, width]


@dataclass(frozen=True)
class MotionFile:
    """What a motion file turned out to be."""

    numerics: str
    modules: dict[str, ModuleSpec]


def describe_motion_file(found: Mapping[str, Tensor], state: Mapping[str, Tensor], num_heads: int) -> MotionFile:
    """Read version, sites, widths and depths from keys and shapes.

    A module in the middle block means v2. Without one, v1 and v3 differ only in their position tables, of 24 and
    of 32 frames; a file without tables is taken for v3.

    Args:
        found: the file's own keys, where position tables still stand.
        state: the same under our names.
        num_heads: heads of every attention.

    Raises:
        CheckpointError: a site without its first norm or its first attention.
    """
    tables = [
        value.shape[1] for key, value in found.items() if key.endswith("pos_encoder.pe") and value.ndim == _TABLE_NDIM
    ]
    has_mid = any(key.startswith("mid_block.") for key in state)
    numerics = "official-v2" if has_mid else "official-v1" if tables and min(tables) <= 24 else "official-v3"
    trained_frames = min(tables) if tables else 32
    modules: dict[str, ModuleSpec] = {}
    for key in state:
        match = _SITE.match(key)
        if match is None or match.group(1) in modules:
            continue
        site = match.group(1)
        for needed in (f"{site}.norm.weight", f"{site}.transformer_blocks.0.attention_blocks.0.to_q.weight"):
            if needed not in state:
                raise CheckpointError(f"The motion module at {site} is incomplete: {needed} is missing.")
        config = {
            "num_heads": num_heads,
            "num_blocks": _count(state, rf"{re.escape(site)}\.transformer_blocks\.(\d+)\."),
            "attentions_per_block": _count(
                state, rf"{re.escape(site)}\.transformer_blocks\.0\.attention_blocks\.(\d+)\."
            ),
            "trained_frames": trained_frames,
        }
        modules[site] = ModuleSpec("temporal", state[f"{site}.norm.weight"].numel(), config)
    return MotionFile(numerics, modules)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})
