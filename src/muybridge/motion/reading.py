"""What a file of motion modules is, and its weights under our names: the one reader of every layout."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from muybridge.errors import CheckpointError
from muybridge.motion.detection import (
    MotionDetection,
    MotionLayout,
    detect_motion,
    motion_layout,
    table_frames,
    variants_with_sites,
)
from muybridge.motion.keys import DIFFUSERS_MOTION_KEYS, ORIGINAL_MOTION_KEYS, describe_modules
from muybridge.motion.positions import sinusoidal_positions
from muybridge.motion.sites import missing_sites
from muybridge.motion.variants import VARIANTS, MotionVariant, motion_variant
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.keymap import KeyMap, apply_key_map
from muybridge.weights.names import listed
from muybridge.weights.precision import Precision

_HOTSHOT_KEYS = KeyMap(
    strip_prefixes=("module.",),
    replace=(
        (r"(^|\.)temporal_attentions\.(\d+)\.", r"\1motion_modules.\2.temporal_transformer."),
        (r"\.pos_encoder\.positional_encoding$", ".pos_encoder.pe"),
    ),
)
"""From HotshotXL's names to AnimateDiff's."""
_DIFFUSERS_KEYS = replace(DIFFUSERS_MOTION_KEYS, strip_prefixes=("module.", "unet."))
_MODULE_KEYS = re.compile(r"(^|\.)(motion_modules|temporal_attentions)\.")
_TABLE_KEYS = (".pos_encoder.pe", ".pos_embed.pe", ".pos_encoder.positional_encoding")
_TABLE_TOLERANCE = 1e-2  # of tables that were rounded to half precision on their way
_TRAINED_FRAMES = 32  # of published files whose tables do not say it


@dataclass(frozen=True)
class MotionPlan:
    """What `MotionAdapter` is to be built of, and how it is run.

    Attributes:
        variant: the published family, with the norm scopes to run under.
        modules_by_site: fields of `ModuleSpec`, as plain values.
        weights: under our names; the file's own tensors.
    """

    variant: MotionVariant
    modules_by_site: dict[str, SettingsDict]
    weights: dict[str, Tensor]


def precision_of_motion(dtype: torch.dtype | None) -> Precision:
    """How `read_weights` reads a file for `plan_motion`: the weights of motion modules in `dtype`, the rest as it is.

    Position tables are looked at and not used, and what they are held to depends on how they are stored.
    """
    if dtype is None:
        return None

    def precision(state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
        modules = (key for key in state if _MODULE_KEYS.search(key) and not key.endswith(_TABLE_KEYS))
        return dict.fromkeys(modules, dtype)

    return precision


def plan_motion(
    found: Mapping[str, Tensor],
    name: str = "",
    *,
    numerics: str | None = None,
    num_heads: int = 8,
    settings: SettingsView | None = None,
    variant: str | None = None,
    expected: Sequence[str] | None = None,
) -> MotionPlan:
    """Read a flat dictionary of weights, with a whole U-Net around the motion modules or not.

    No value is looked at except those of position tables, so the tensors may be on the meta device.

    Args:
        found: keys of any known layout.
        name: of the file, for messages and for what keys cannot tell.
        numerics: norm scopes to run under; by default those of the variant.
        num_heads: attention heads, which no shape tells; 8 in all published files.
        settings: of every module, decided by a config file instead of by the weights.
        variant: what it is, one of `motion.variants.VARIANTS`; by default as detected.
        expected: the sites that a config file says there are; by default those of a whole published set.

    Raises:
        CheckpointError: no motion modules, not a whole set of them, or those of a related model with other parts.
        ConfigError: an unknown variant.

    Warns:
        UserWarning: keys, shapes and name fit several variants, and one is assumed; `variant` is none of those that
            fit; or position tables of another kind than those that are computed.
    """
    state = {key.removeprefix("module."): value for key, value in found.items()}
    layout = motion_layout(state)
    if layout is MotionLayout.NONE:
        raise CheckpointError(
            f"{name} has no motion modules: none of its {len(found)} keys contains 'motion_modules.' "
            f"(the keys: {listed(list(found))})."
        )
    detection = detect_motion(state, layout, name)
    if detection.variant not in VARIANTS:
        raise CheckpointError(
            f"{name} is a motion module of the kind {detection.variant}, which has parts besides motion modules and is "
            f"not supported. Supported: {', '.join(VARIANTS)}."
        )
    tables, weights = _our_names(layout, found)
    modules = describe_modules(weights, num_heads, table_frames(state) or _TRAINED_FRAMES)
    _require_whole(modules, name, expected)
    chosen = choose_variant(detection, state, name, variant, numerics)
    _check_tables(tables, name)
    trained = {} if chosen.trained_frames is None else {"trained_frames": chosen.trained_frames}
    changes = trained | dict(settings or {})
    specs = {site: asdict(replace(spec, config={**spec.config, **changes})) for site, spec in modules.items()}
    return MotionPlan(chosen, specs, weights)


def choose_variant(
    detection: MotionDetection, names: Iterable[str], name: str, asked: str | None, numerics: str | None
) -> MotionVariant:
    """The variant asked for, or else the one detected; warns where it may not be what the file is.

    Args:
        detection: of the file.
        names: of its weights or sites.
        name: of the file.
        asked: a variant, or None.
        numerics: norm scopes to run under, or None for the variant's.

    Raises:
        ConfigError: an unknown variant.

    Warns:
        UserWarning: as of `plan_motion`.
    """
    chosen = motion_variant(asked or detection.variant, name)
    if numerics is not None:
        chosen = replace(chosen, numerics=numerics)
    if asked is None and detection.decided_by == "guess":
        _warn(
            f"{name} has keys and shapes that {_enumerated(detection.candidates)} share, and its name does not say "
            f"which of them it is. It is taken for {chosen.name} and run with numerics {chosen.numerics}, scheduler "
            f"{chosen.scheduler}, {chosen.steps} steps and guidance {chosen.guidance:g}. Say which it is: with "
            "motion_variant in load_pipeline, variant in read_motion, or --motion-variant on the command line."
        )
    fitting = variants_with_sites(names)
    if asked is not None and asked not in {*fitting, *detection.candidates}:
        _warn(f"{name} has the keys and shapes of {_enumerated(fitting)}; it is run as {asked}.")
    return chosen


def position_table(num_frames: int, width: int) -> Tensor:
    """The sinusoidal table `[1, num_frames, width]` that motion files carry, float32."""
    return sinusoidal_positions(torch.arange(num_frames, dtype=torch.float32), width)[None]


def _require_whole(present: Iterable[str], name: str, expected: Sequence[str] | None) -> None:
    there = set(present)
    lacking = missing_sites(there) if expected is None else [site for site in expected if site not in there]
    if lacking:
        raise CheckpointError(
            f"{name} is not a whole set of motion modules: it has {len(there)} and lacks those at "
            f"{listed(lacking)}. Copy or download it again. Fewer on purpose are read from the folder "
            "of an adapter that this package saved."
        )


def _our_names(layout: MotionLayout, found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The position tables under the original's names, and all other weights of motion modules under ours."""
    if layout is MotionLayout.HOTSHOT:
        found = apply_key_map(_HOTSHOT_KEYS, found)
    key_map = _DIFFUSERS_KEYS if layout is MotionLayout.DIFFUSERS else ORIGINAL_MOTION_KEYS
    tables = {
        key.replace(".pos_embed.pe", ".pos_encoder.pe"): value
        for key, value in found.items()
        if key.endswith((".pos_encoder.pe", ".pos_embed.pe")) and "motion_modules." in key
    }
    return tables, apply_key_map(key_map, found)


def _check_tables(tables: Mapping[str, Tensor], name: str) -> None:
    """Warn where a position table is not the one that is computed in its place, whatever it was rounded to."""
    for key, table in tables.items():
        if table.ndim != 3 or table.is_meta or not table.is_floating_point():
            continue
        expected = position_table(table.shape[1], table.shape[2]).to(table.dtype).float()
        # 8 bits keep values near 1 to an eighth or a quarter, and some were rounded to half precision before.
        tolerance = max(_TABLE_TOLERANCE, torch.finfo(table.dtype).eps)
        if not torch.allclose(table.float(), expected, atol=tolerance):
            _warn(
                f"{name} has position tables of its own ({key}); they are not used, as in the original, which computes "
                "them. Motion may differ from programs that load them."
            )
            return


def _warn(message: str) -> None:
    """A warning about the line that called this package, from however deep inside."""
    frame, level = sys._getframe(1), 2
    package = __name__.partition(".")[0] + "."
    while frame.f_back is not None and frame.f_back.f_globals.get("__name__", "").startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level + 1)


def _enumerated(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
