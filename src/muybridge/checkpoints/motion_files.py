"""Motion adapters read from everybody's files, whatever their layout."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.motion_detection import (
    MotionDetection,
    MotionLayout,
    detect_motion,
    motion_layout,
    variants_with_sites,
)
from muybridge.checkpoints.motion_variants import VARIANTS, MotionVariant, hinted_variant, motion_variant
from muybridge.errors import CheckpointError
from muybridge.motion import MotionAdapter
from muybridge.motion.keys import DIFFUSERS_MOTION_KEYS, ORIGINAL_MOTION_KEYS, describe_motion_file
from muybridge.motion.positions import sinusoidal_positions
from muybridge.weights.files import read_folder_weights, read_weights
from muybridge.weights.keymap import KeyMap, apply_key_map
from muybridge.weights.loading import load_strictly

_HOTSHOT_KEYS = KeyMap(
    strip_prefixes=("module.",),
    replace=(
        (r"(^|\.)temporal_attentions\.(\d+)\.", r"\1motion_modules.\2.temporal_transformer."),
        (r"\.pos_encoder\.positional_encoding$", ".pos_encoder.pe"),
    ),
)
"""From HotshotXL's names to AnimateDiff's."""
_DIFFUSERS_KEYS = replace(DIFFUSERS_MOTION_KEYS, strip_prefixes=("module.", "unet."))
_TABLE_TOLERANCE = 1e-2  # bfloat16 keeps values near 1 to 4e-3


@dataclass(frozen=True)
class LoadedMotion:
    """A motion adapter, and how its family is run."""

    adapter: MotionAdapter
    variant: MotionVariant


def read_motion(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    numerics: str | None = None,
    num_heads: int = 8,
    variant: str | None = None,
) -> LoadedMotion:
    """Read a motion adapter from a file or folder in any known layout.

    Files: the original's names (`.ckpt`, `.pth`, `.safetensors`), in its training's wrappers and with a whole U-Net
    around them or not; diffusers' names; HotshotXL's. Folders: a `MotionAdapter` of diffusers or of this package.

    Args:
        path: the file or folder, here or on the hub (see `locate_weights`).
        dtype: of the weights; by default as they are stored.
        numerics: norm scopes to run under; by default those of `variant`, or else those that a folder of this package
            says, or else those of the variant found.
        num_heads: attention heads, which a file does not tell (a folder does); 8 in all published ones.
        variant: what it is, one of `motion_variants.VARIANTS`; by default as detected.

    Raises:
        CheckpointError: unreadable, no motion modules in it, incomplete, or of a related model that is not supported.
        ConfigError: an unknown variant.

    Warns:
        UserWarning: keys, shapes and name fit several variants, and one is assumed; or `variant` is none of those that
            fit.
    """
    found, name = locate_weights(path), Path(path).name
    if found.is_dir():
        return _read_folder(found, name, dtype, numerics, variant)
    return adapter_from_weights(
        read_weights(found), name, dtype=dtype, numerics=numerics, num_heads=num_heads, variant=variant
    )


def adapter_from_weights(
    found: Mapping[str, Tensor],
    name: str = "",
    *,
    dtype: torch.dtype | None = None,
    numerics: str | None = None,
    num_heads: int = 8,
    settings: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> LoadedMotion:
    """The adapter in a flat dictionary of weights, whose tensors it shares without `dtype`.

    Args:
        found: keys of any known layout.
        name: of the file, for messages and for what keys cannot tell.
        dtype: of the weights; by default as they are.
        numerics: as of `read_motion`.
        num_heads: as of `read_motion`.
        settings: of every module, decided by a config file instead of by the weights.
        variant: as of `read_motion`.

    Raises:
        MuybridgeError: as of `read_motion`.

    Warns:
        UserWarning: as of `read_motion`.
    """
    empty, weights = plan_adapter(
        found, name, numerics=numerics, num_heads=num_heads, settings=settings, variant=variant
    )
    cast = {key: value if dtype is None else value.to(dtype) for key, value in weights.items()}
    load_strictly(empty.adapter, cast, name, assign=True)
    return LoadedMotion(empty.adapter.eval(), empty.variant)


def plan_adapter(
    found: Mapping[str, Tensor],
    name: str = "",
    *,
    numerics: str | None = None,
    num_heads: int = 8,
    settings: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> tuple[LoadedMotion, dict[str, Tensor]]:
    """The adapter for a dictionary of weights on the meta device, and the weights under its names.

    No value is looked at except those of position tables, so the tensors of `found` may be on the meta device too.

    Raises:
        MuybridgeError: as of `read_motion`; whether all weights are there and fit is not checked.

    Warns:
        UserWarning: as of `read_motion`.
    """
    state = {key.removeprefix("module."): value for key, value in found.items()}
    layout = motion_layout(state)
    if layout is MotionLayout.NONE:
        raise CheckpointError(
            f"{name} has no motion modules: none of its {len(found)} keys contains 'motion_modules.' "
            f"(first keys: {', '.join(list(found)[:3])})."
        )
    detection = detect_motion(state, layout, name)
    if detection.variant not in VARIANTS:
        raise CheckpointError(
            f"{name} is a motion module of the kind {detection.variant}, which has parts besides motion modules and is "
            f"not supported. Supported: {', '.join(VARIANTS)}."
        )
    chosen = _chosen(detection, state, name, variant, numerics)
    tables, weights = _our_names(layout, state)
    _check_tables(tables, name)
    description = describe_motion_file(tables, weights, num_heads)
    trained = {} if chosen.trained_frames is None else {"trained_frames": chosen.trained_frames}
    changes = trained | dict(settings or {})
    specs = {
        site: asdict(replace(spec, config={**spec.config, **changes})) for site, spec in description.modules.items()
    }
    with torch.device("meta"):
        adapter = MotionAdapter(specs, numerics=chosen.numerics)
    return LoadedMotion(adapter, chosen), weights


def _chosen(
    detection: MotionDetection, names: Iterable[str], name: str, asked: str | None, numerics: str | None
) -> MotionVariant:
    """The variant asked for, or else the one detected; warns where it may not be what the file is."""
    chosen = motion_variant(asked or detection.variant, name)
    if numerics is not None:
        chosen = replace(chosen, numerics=numerics)
    if asked is None and detection.decided_by == "guess":
        _warn_of_guess(name, detection, chosen)
    fitting = variants_with_sites(names)
    if asked is not None and asked not in {*fitting, *detection.candidates}:
        warnings.warn(f"{name} has the keys and shapes of {_listed(fitting)}; it is run as {asked}.", stacklevel=5)
    return chosen


def _warn_of_guess(name: str, detection: MotionDetection, chosen: MotionVariant) -> None:
    warnings.warn(
        f"{name} has keys and shapes that {_listed(detection.candidates)} share, and its name does not say which of "
        f"them it is. It is taken for {chosen.name} and run with numerics {chosen.numerics}, scheduler "
        f"{chosen.scheduler}, {chosen.steps} steps and guidance {chosen.guidance:g}. Say which it is: with "
        "motion_variant in load_pipeline, variant in read_motion, or --motion-variant on the command line.",
        stacklevel=6,
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _our_names(layout: MotionLayout, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The position tables under the original's names, and all other weights of motion modules under ours."""
    if layout is MotionLayout.HOTSHOT:
        state = apply_key_map(_HOTSHOT_KEYS, state)
    key_map = _DIFFUSERS_KEYS if layout is MotionLayout.DIFFUSERS else ORIGINAL_MOTION_KEYS
    tables = {
        key.replace(".pos_embed.pe", ".pos_encoder.pe"): value
        for key, value in state.items()
        if key.endswith((".pos_encoder.pe", ".pos_embed.pe")) and "motion_modules." in key
    }
    return tables, apply_key_map(key_map, state)


def _check_tables(tables: Mapping[str, Tensor], name: str) -> None:
    """Warn where a position table is not the one that is computed in its place."""
    for key, table in tables.items():
        if table.ndim != 3 or table.is_meta:
            continue
        expected = position_table(table.shape[1], table.shape[2])
        if not torch.allclose(table.float(), expected, atol=_TABLE_TOLERANCE):
            warnings.warn(
                f"{name} has position tables of its own ({key}); they are not used, as in the original, which computes "
                "them. Motion may differ from programs that load them.",
                stacklevel=4,
            )
            return


def position_table(num_frames: int, width: int) -> Tensor:
    """The sinusoidal table `[1, num_frames, width]` that motion files carry, float32."""
    return sinusoidal_positions(torch.arange(num_frames, dtype=torch.float32), width)[None]


def _read_folder(
    folder: Path, name: str, dtype: torch.dtype | None, numerics: str | None, variant: str | None
) -> LoadedMotion:
    config = read_motion_config(folder)
    if "modules_by_site" in config:
        detection = detect_saved_motion(config, name)
        if detection is None or detection.variant not in VARIANTS:
            raise CheckpointError(f"{folder} is no motion adapter for a U-Net; its sites are in another network.")
        said = numerics or (None if variant is None else motion_variant(variant, name).numerics)
        adapter = MotionAdapter.from_pretrained(folder, torch_dtype=dtype or _stored_dtype(folder))
        if said is not None:
            adapter.set_numerics(said)
        return LoadedMotion(adapter, _chosen(detection, adapter.sites, name, variant, adapter.numerics))
    if config.get("conv_in_channels"):
        raise CheckpointError(f"{folder} is a motion adapter of PIA, which has a first convolution; not supported.")
    heads = config.get("motion_num_attention_heads", 8)
    if not isinstance(heads, int):
        if len(set(heads)) != 1:
            raise CheckpointError(f"{folder} has other numbers of heads at each level ({heads}); not supported.")
        heads = heads[0]
    settings = {
        "norm_groups": config.get("motion_norm_num_groups", 32),
        "trained_frames": config.get("motion_max_seq_length", 32),
    }
    weights = _folder_weights(folder)
    return adapter_from_weights(
        weights,
        name,
        dtype=dtype,
        numerics=numerics,
        num_heads=heads,
        settings=settings,
        variant=variant,
    )


def read_motion_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a motion adapter's folder, of diffusers or of this package.

    Raises:
        CheckpointError: missing, damaged, or of another class.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; it is not the folder of a motion adapter.")
    try:
        config = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from error
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found != "MotionAdapter":
        raise CheckpointError(f"{folder} holds a {found}, not a MotionAdapter.")
    return config


def _folder_weights(folder: Path) -> dict[str, Tensor]:
    plain = "diffusion_pytorch_model"
    names = (plain, f"{plain}.fp16")  # some published folders hold nothing but half precision
    present = (name for name in names if any(folder.glob(f"{name}.safetensors*")) or any(folder.glob(f"{name}.bin*")))
    return read_folder_weights(folder, next(present, plain))


def _stored_dtype(folder: Path) -> torch.dtype:
    dtypes = {value.dtype for value in _folder_weights(folder).values()}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def detect_saved_motion(config: Mapping[str, Any], name: str = "") -> MotionDetection | None:
    """What an adapter saved by this package is: its config says the norm scopes, and its sites say the rest.

    None where the config is diffusers', which says neither.
    """
    sites = config.get("modules_by_site")
    if not isinstance(sites, Mapping):
        return None
    if sites and all(site.startswith("transformer_blocks.") for site in sites):
        return MotionDetection("easyanimate-motion", ("easyanimate-motion",), "config.json")
    possible = _with_numerics(config.get("numerics", "official-v3"), sites)
    if len(possible) == 1:
        return MotionDetection(possible[0], possible, "config.json")
    if (hint := hinted_variant(name)) in possible:
        return MotionDetection(hint, (hint, *(each for each in possible if each != hint)), "file name")
    return MotionDetection(possible[0], possible, "guess")


def _with_numerics(numerics: str, sites: Iterable[str]) -> tuple[str, ...]:
    by_sites = variants_with_sites(sites)
    if numerics == "diffusers":  # which all of them can be run under
        return by_sites if "animatediff-v2" in by_sites else by_sites[:1]
    same = tuple(variant.name for variant in VARIANTS.values() if variant.numerics == numerics)
    return tuple(name for name in by_sites if name in same) or same[:1] or by_sites[:1]
