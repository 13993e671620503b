"""Motion modules that other installed packages offer, and which package a kind comes from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from muybridge.errors import ConfigError
from muybridge.version import __version__

ENTRY_POINT_GROUP = "muybridge.motion_modules"
"""Of entry points from the name of a kind to its class: `my_motion = "my_package.motion:MyMotionModule"`."""


@dataclass(frozen=True)
class Origin:
    """A package and its version; None where it is not an installed one."""

    package: str
    version: str | None = None

    def __str__(self) -> str:
        """As in "my-motion 0.2.0"."""
        return self.package if self.version is None else f"{self.package} {self.version}"


OWN_ORIGIN = Origin("muybridge", __version__)


def offered_kinds(kind: str | None = None) -> dict[str, list[EntryPoint]]:
    """Entry points of all installed packages by name, or of one name; nothing is imported. Takes milliseconds."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if kind in (None, entry.name):
            found.setdefault(entry.name, []).append(entry)
    return found


def origin_of_entry(entry: EntryPoint) -> Origin:
    """The package that an entry point belongs to."""
    if entry.dist is None:
        return Origin(top_package(entry.value))
    return Origin(entry.dist.name, entry.dist.version)


def origin_of_class(cls: type) -> Origin:
    """The package that defines a class."""
    package = top_package(cls.__module__)
    if package == OWN_ORIGIN.package:
        return OWN_ORIGIN
    try:
        return Origin(package, version(package))
    except PackageNotFoundError:
        return Origin(package)


def top_package(name: str) -> str:
    """`my_package` of `my_package.motion:MyMotionModule`."""
    return name.partition(":")[0].partition(".")[0].strip()


def load_entry(entry: EntryPoint, what: str = "motion kind") -> Any:
    """Import what an entry point names.

    Raises:
        ConfigError: the import fails, for whatever reason; names it, which is a `what`, the package and the error.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # a stranger's module may do anything while it is imported
        raise ConfigError(
            f"The {what} {entry.name!r} of {origin_of_entry(entry)} cannot be imported from {entry.value!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
