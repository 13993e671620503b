"""Names in AnimateDiff's published motion files, as data, and what a file's names and shapes say about it."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def describe_modules(state: Mapping[str, Tensor], num_heads: int, trained_frames: int) -> dict[str, ModuleSpec]:
    """Read sites, widths and depths of temporal motion modules from keys and shapes.

    Args:
        state: weights under our names.
        num_heads: heads of every attention, which no shape tells.
        trained_frames: likewise.

    Raises:
        CheckpointError: a site without its first norm or its first attention, or with fewer attentions than others.
    """
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
    most = max((spec.config["attentions_per_block"] for spec in modules.values()), default=0)
    for site, spec in modules.items():
        if (has := spec.config["attentions_per_block"]) != most:
            raise CheckpointError(
                f"The motion module at {site} is incomplete: it has {has} of the {most} attentions that others have."
            )
    return modules


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})
