"""Motion adapters read from everybody's files and folders, here or on the hub."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from muybridge.checkpoints.locate import locate_weights
from muybridge.checkpoints.places import require_kind
from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.motion import MotionAdapter
from muybridge.motion.detection import MotionDetection, variants_with_sites
from muybridge.motion.reading import choose_variant, plan_motion, precision_of_motion
from muybridge.motion.sites import sites_of_unet
from muybridge.motion.variants import VARIANTS, MotionVariant, hinted_variant, motion_variant
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.files import read_weights
from muybridge.weights.folder_files import read_folder_weights


@dataclass(frozen=True)
class FolderSettings:
    """What the config of diffusers' `MotionAdapter` says besides the heads.

    Attributes:
        of_modules: settings of every module.
        sites: that there are.
    """

    of_modules: SettingsView
    sites: Sequence[str]


@dataclass(frozen=True)
class LoadedMotion:
    """A motion adapter, and how its family is run.

    Attributes:
        adapter: the modules.
        variant: the family.
        is_published: whether it is in a layout of other programs, which all are for the image model of their family;
            this package's own may be for any.
    """

    adapter: MotionAdapter
    variant: MotionVariant
    is_published: bool = True


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
        variant: what it is, one of `motion.variants.VARIANTS`; by default as detected.

    Raises:
        CheckpointError: unreadable, something else, no whole set of motion modules, or those of a related model that is
            not supported.
        ConfigError: an unknown variant.

    Warns:
        UserWarning: keys, shapes and name fit several variants, and one is assumed; or `variant` is none of those that
            fit.
    """
    found, name = locate_weights(path), Path(path).name
    if found.is_dir():
        return _read_folder(found, name, dtype, numerics, variant)
    return adapter_from_weights(
        read_weights(found, precision_of_motion(dtype)),
        name,
        dtype=dtype,
        numerics=numerics,
        num_heads=num_heads,
        variant=variant,
    )


def adapter_from_weights(
    found: Mapping[str, Tensor],
    name: str = "",
    *,
    dtype: torch.dtype | None = None,
    numerics: str | None = None,
    num_heads: int = 8,
    variant: str | None = None,
    folder: FolderSettings | None = None,
) -> LoadedMotion:
    """The adapter in a flat dictionary of weights, whose tensors it shares without `dtype`.

    Args:
        found: keys of any known layout.
        name: of the file, for messages and for what keys cannot tell.
        dtype: of the weights; by default as they are.
        numerics: as of `read_motion`.
        num_heads: as of `read_motion`.
        variant: as of `read_motion`.
        folder: what a config file beside them says.

    Raises:
        MuybridgeError: as of `read_motion`.

    Warns:
        UserWarning: as of `read_motion`.
    """
    require_kind(found, "motion-module", name, name)
    plan = plan_motion(
        found,
        name,
        numerics=numerics,
        num_heads=num_heads,
        variant=variant,
        settings=None if folder is None else folder.of_modules,
        expected=None if folder is None else folder.sites,
    )
    return LoadedMotion(MotionAdapter.of_plan(plan, name, dtype), plan.variant)


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
        chosen = choose_variant(detection, adapter.sites, name, variant, adapter.numerics)
        return LoadedMotion(adapter, chosen, is_published=False)
    if config.get("conv_in_channels"):
        raise CheckpointError(f"{folder} is a motion adapter of PIA, which has a first convolution; not supported.")
    heads = set(_numbers(config, "motion_num_attention_heads", 8))
    if len(heads) != 1:
        raise CheckpointError(f"{folder} has other numbers of heads at each level {tuple(heads)}; not supported.")
    settings = {
        "norm_groups": config.get("motion_norm_num_groups", 32),
        "trained_frames": config.get("motion_max_seq_length", 32),
    }
    return adapter_from_weights(
        read_folder_weights(folder, precision_of_motion(dtype)),
        name,
        dtype=dtype,
        numerics=numerics,
        num_heads=heads.pop(),
        variant=variant,
        folder=FolderSettings(settings, sites_in_config(config)),
    )


def sites_in_config(config: SettingsView) -> list[str]:
    """The sites of diffusers' `MotionAdapter` with this config."""
    layers, levels = (
        _numbers(config, "motion_layers_per_block", 2),
        len(_numbers(config, "block_out_channels", [1] * 4)),
    )
    return sites_of_unet(layers * levels if len(layers) == 1 else layers, config.get("use_motion_mid_block", True))


def _numbers(config: SettingsView, name: str, default: int | list[int]) -> list[int]:
    """A setting that is one whole number, or one for each level."""
    value = config.get(name, default)
    found = value if isinstance(value, list) else [value]
    if not found or any(not isinstance(each, int) or each < 1 for each in found):
        raise CheckpointError(
            f"The config.json of the motion adapter has {name} {value!r}, which must be a whole number from 1 on, or a "
            "list of them. Get the folder again."
        )
    return found


def read_motion_config(folder: Path) -> SettingsDict:
    """The `config.json` of a motion adapter's folder, of diffusers or of this package.

    Raises:
        CheckpointError: missing, damaged, or of another class.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; it is not the folder of a motion adapter.")
    config = read_json_object(path, "the settings of a motion adapter")
    found = config.get("_class_name")
    if found != "MotionAdapter":
        raise CheckpointError(f"{folder} holds a {found}, not a MotionAdapter.")
    return config


def _stored_dtype(folder: Path) -> torch.dtype:
    dtypes = {value.dtype for value in read_folder_weights(folder).values()}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def detect_saved_motion(config: SettingsView, name: str = "") -> MotionDetection | None:
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
