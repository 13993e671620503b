"""Which packages the modules of an adapter come from: written into its config, and asked for when it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from muybridge.errors import ConfigError
from muybridge.motion.contract import MotionModule
from muybridge.motion.discovery import OWN_ORIGIN, Origin
from muybridge.motion.registry import kind_of, kind_origin, motion_kinds
from muybridge.types import SettingsDict, SettingsView

FORMAT_VERSION = 1
"""Of an adapter's config. It is raised with every change that a version before it would misread."""

Origins = Mapping[str, SettingsView]
"""From kinds to `{"package": ..., "version": ...}`."""


def origins_of(modules: Iterable[object]) -> dict[str, SettingsDict]:
    """Of all kinds among `modules`, parts of composite ones included if they are there too."""
    kinds = sorted({kind_of(module) for module in modules if isinstance(module, MotionModule)})
    return {kind: asdict(kind_origin(kind)) for kind in kinds}


def require_format(format_version: int) -> None:
    """Refuse a config of a format that is not known yet.

    Raises:
        ConfigError: it was written by a newer version of this package.
    """
    if format_version > FORMAT_VERSION:
        raise ConfigError(
            f"This motion adapter was written by a newer muybridge, in format {format_version}; {OWN_ORIGIN} reads "
            f"formats up to {FORMAT_VERSION}. Update: pip install --upgrade muybridge"
        )


def require_kinds(origins: Origins) -> None:
    """Refuse an adapter whose modules are of kinds that are not installed.

    Raises:
        ConfigError: names the kind, the package that it was saved with, and how to install that.
    """
    here = motion_kinds()
    for kind, recorded in origins.items():
        origin = Origin(**recorded)
        if kind in here or origin == OWN_ORIGIN:
            continue
        present = f" ({OWN_ORIGIN} is installed)" if origin.package == OWN_ORIGIN.package else ""
        wanted = origin.package if origin.version is None else f"{origin.package}>={origin.version}"
        raise ConfigError(
            f"This motion adapter has modules of the kind {kind!r} of the package {origin}, which there is not here"
            f"{present}. Install it: pip install '{wanted}'; if it is not an installable package, import the module "
            "that registers the kind first."
        )


def changed_origins(origins: Origins) -> str:
    """What to add to the message of an error that other versions may explain; empty if the versions are the same."""
    changed = []
    for kind, recorded in origins.items():
        saved = Origin(**recorded)
        try:
            here = kind_origin(kind)
        except ConfigError:  # it cannot be had, which is then the error that this is added to
            continue
        if saved != here:
            changed.append(f"{kind!r} by {saved}, and here it is of {here}")
    return f" The adapter was written with other versions: {'; '.join(changed)}." if changed else ""
