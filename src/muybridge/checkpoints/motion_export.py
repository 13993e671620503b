"""Motion adapters written for other programs: the original's single file, and the folder of diffusers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor

from muybridge.errors import CheckpointError, ConfigError
from muybridge.files.atomic import new_file
from muybridge.files.new_folder import check_new, new_model_folder
from muybridge.motion import MotionAdapter
from muybridge.motion.contract import ModuleSpec
from muybridge.motion.reading import position_table
from muybridge.motion.sites import missing_sites, sites_of_unet
from muybridge.types import SettingsDict
from muybridge.weights.loading import load_strictly
from muybridge.weights.names import listed

FILE_SUFFIXES = (".safetensors", ".ckpt", ".pth")
"""What a single file may be called: safetensors, or a torch pickle as the original publishes."""


def write_motion(adapter: MotionAdapter, target: Path, layout: str) -> Path:
    """Write an adapter in a layout; the weights are written in the precision they have.

    Args:
        adapter: of the kind `temporal`, except for the layout "muybridge", which takes any.
        target: a new file for "original" (see `FILE_SUFFIXES`), a new folder for "diffusers" and "muybridge".
        layout: one of `MOTION_LAYOUTS`.

    Returns:
        `target`.

    Raises:
        ConfigError: unknown layout, or a suffix that does not go with it.
        CheckpointError: the layout cannot express the adapter.
        OutputError: there is something at `target`, or it cannot be written; nothing is left behind.
    """
    check_layout(target, layout)
    check_new(target)
    _WRITERS[layout](adapter, target)
    return target


def check_layout(target: Path, layout: str) -> None:
    """Whether there is such a layout, and whether the target's name goes with it.

    Raises:
        ConfigError: otherwise.
    """
    if layout not in _WRITERS:
        raise ConfigError(f"Unknown layout {layout!r}. Known: {', '.join(MOTION_LAYOUTS)}.")
    is_file = layout == "original"
    if is_file and target.suffix not in FILE_SUFFIXES:
        raise ConfigError(f"The original's layout is one file, ending in {' or '.join(FILE_SUFFIXES)}; given {target}.")
    if not is_file and target.suffix in FILE_SUFFIXES:
        raise ConfigError(f"The layout {layout!r} is a folder; given {target}. Leave {target.suffix} out.")


def original_weights(adapter: MotionAdapter) -> dict[str, Tensor]:
    """The adapter's weights under the original's names, with position tables, by which files are told apart.

    Raises:
        CheckpointError: modules that the original does not have, or lacks some that it has.
    """
    _require_temporal(adapter)
    if lacking := missing_sites(adapter.sites):
        raise CheckpointError(
            f"The original's files hold modules at every site, and this adapter has none at {listed(lacking)}. Save it "
            "in this package's own layout."
        )
    state: dict[str, Tensor] = {}
    for key, value in adapter.state_dict().items():
        name = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", key, count=1)
        state[name] = value.contiguous()
        if name.endswith(".to_q.weight"):
            table = position_table(_trained_frames(adapter), len(value))
            state[name.removesuffix("to_q.weight") + "pos_encoder.pe"] = table.to(value.dtype)
    return state


def _require_temporal(adapter: MotionAdapter) -> None:
    kinds = {spec["kind"] for spec in adapter.config["modules_by_site"].values()}
    if kinds != {"temporal"}:
        raise CheckpointError(
            f"This adapter has modules of the kind {', '.join(sorted(kinds))}; only 'temporal' ones exist elsewhere. "
            "Save it in this package's own layout."
        )


def diffusers_weights(adapter: MotionAdapter) -> dict[str, Tensor]:
    """The adapter's weights under the names of diffusers' `MotionAdapter`, with position tables.

    Raises:
        CheckpointError: modules that diffusers does not have.
    """
    _require_temporal(adapter)
    names: tuple[tuple[str, str], ...] = (
        (".attention_blocks.0.", ".attn1."),
        (".attention_blocks.1.", ".attn2."),
        (".norms.0.", ".norm1."),
        (".norms.1.", ".norm2."),
        (".ff_norm.", ".norm3."),
    )
    state: dict[str, Tensor] = {}
    for key, value in adapter.state_dict().items():
        name = key
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        state[name] = value.contiguous()
        if name.endswith(".attn1.to_q.weight"):
            table = position_table(_trained_frames(adapter), len(value))
            state[name.removesuffix("attn1.to_q.weight") + "pos_embed.pe"] = table.to(value.dtype)
    return state


def diffusers_config(adapter: MotionAdapter) -> SettingsDict:
    """Keyword arguments of diffusers' `MotionAdapter` that make the same modules.

    Raises:
        CheckpointError: sites or settings that it cannot express.
    """
    _require_temporal(adapter)
    specs = {site: ModuleSpec(**spec) for site, spec in adapter.config["modules_by_site"].items()}
    down: dict[int, list[int]] = {}
    for site, spec in specs.items():
        if match := re.fullmatch(r"down_blocks\.(\d+)\.motion_modules\.\d+", site):
            down.setdefault(int(match.group(1)), []).append(spec.width)
    layers = [len(down[level]) for level in sorted(down)]
    has_mid = "mid_block.motion_modules.0" in specs
    strange = sorted(set(sites_of_unet(layers, has_mid)).symmetric_difference(specs))
    if strange:
        raise CheckpointError(
            "diffusers' MotionAdapter has modules at every row of every level; this one differs at "
            f"{listed(strange)}. Save it in this package's own layout."
        )
    common = {
        "motion_num_attention_heads": _single(specs, "num_heads"),
        "motion_transformer_layers_per_block": _single(specs, "num_blocks"),
        "motion_norm_num_groups": _single(specs, "norm_groups"),
    }
    if _single(specs, "attentions_per_block") != 2:
        raise CheckpointError("diffusers' MotionAdapter has two attentions a block; this one has another number.")
    return {
        **common,
        "block_out_channels": [down[level][0] for level in sorted(down)],
        "motion_layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "motion_transformer_layers_per_mid_block": common["motion_transformer_layers_per_block"],
        "motion_max_seq_length": _trained_frames(adapter),
        "use_motion_mid_block": has_mid,
    }


def _trained_frames(adapter: MotionAdapter) -> int:
    frames = adapter.trained_frames
    if frames is None:
        raise CheckpointError("This adapter does not say how many frames it was trained on, which other programs need.")
    return frames


def _single(specs: Mapping[str, ModuleSpec], setting: str) -> int:
    defaults = {"num_heads": 8, "num_blocks": 1, "norm_groups": 32, "attentions_per_block": 2}
    values = {spec.config.get(setting, defaults[setting]) for spec in specs.values()}
    if len(values) != 1:
        raise CheckpointError(f"The modules of this adapter differ in {setting} ({sorted(values)}); not possible here.")
    return values.pop()


def _write_original(adapter: MotionAdapter, target: Path) -> None:
    state = {key: value.detach().cpu().contiguous() for key, value in original_weights(adapter).items()}
    with new_file(target) as temporary:
        if target.suffix == ".safetensors":
            save_file(state, temporary, metadata={"format": "pt"})
        else:
            torch.save(state, temporary)


def _write_diffusers(adapter: MotionAdapter, target: Path) -> None:
    state, config = diffusers_weights(adapter), diffusers_config(adapter)
    with torch.device("meta"):
        model = diffusers.MotionAdapter(**config)
    load_strictly(model, state, "the adapter", assign=True)
    with new_model_folder(target) as temporary:
        model.save_pretrained(temporary)


def _write_muybridge(adapter: MotionAdapter, target: Path) -> None:
    with new_model_folder(target) as temporary:
        adapter.save_pretrained(temporary)


_WRITERS: dict[str, Callable[[MotionAdapter, Path], None]] = {
    "diffusers": _write_diffusers,
    "original": _write_original,
    "muybridge": _write_muybridge,
}
MOTION_LAYOUTS = tuple(_WRITERS)
"""Layouts that `write_motion` knows."""
