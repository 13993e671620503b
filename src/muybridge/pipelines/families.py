"""Which families there are, and which of them a model is of: nothing else asks that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from muybridge.errors import CheckpointError, ConfigError, MuybridgeError
from muybridge.pipelines.family import Family, Recognised
from muybridge.types import SettingsView

T = TypeVar("T")

ENTRY_POINT_GROUP = "muybridge.families"
"""Of entry points from the name of a family to its record: `MyPipeline = "my_package.family:FAMILY"`."""
_BUILT_IN = ("muybridge.pipelines.animatediff.family", "muybridge.pipelines.easyanimate.family")


@dataclass(frozen=True)
class Found:
    """A family, and what a folder is to it."""

    family: Family
    recognised: Recognised


def built_in_families() -> list[Family]:
    """Those that ship with this package."""
    return [import_module(name).FAMILY for name in _BUILT_IN]


def known_families() -> list[Family]:
    """Those that ship with this package, and those that installed ones offer.

    Warns:
        UserWarning: an installed one that cannot be imported; it is left out.
    """
    return [*built_in_families(), *_offered_families()]


def family_of(place: Path, brings_motion: bool) -> Family:
    """The family of a model that is to make videos.

    Args:
        place: its file or folder.
        brings_motion: whether a motion adapter comes with it, which makes videos of an image model.

    Raises:
        CheckpointError: no family knows it, or it makes still pictures.
        ConfigError: as of `family_of_folder`.
    """
    if place.is_file():
        return family_of_file(place)
    found = family_of_folder(place)
    if not (found.recognised.makes_videos or brings_motion):
        raise _unsupported(place, found.recognised.class_name)
    return found.family


def family_of_folder(folder: Path) -> Found:
    """The family of a model's folder.

    A family whose name the `model_index.json` has is asked first, then those that ship here, then those of others.

    Raises:
        CheckpointError: no family knows it; lists what is supported.
        ConfigError: its family is one of an installed package that cannot be imported.
    """
    from muybridge.checkpoints.parts import read_model_index

    found = recognised_folder(folder)
    if found is None:
        raise _unsupported(folder, read_model_index(folder).get("_class_name"))
    return found


def recognised_folder(folder: Path) -> Found | None:
    """As `family_of_folder`; None where no family knows it."""
    index = _index(folder)
    for family in _in_turn(index.get("_class_name")):
        if (found := _asked(family, lambda family=family: family.recognise.folder(folder, index))) is not None:
            return Found(family, found)
    return None


def family_of_file(path: Path) -> Family:
    """The family of a model that is a single weight file; those of other packages are asked before those here.

    Raises:
        CheckpointError: no family knows it.
    """
    for family in (*_offered_families(), *built_in_families()):
        knows = family.recognise.file
        if knows is not None and _asked(family, lambda knows=knows: knows(path)):
            return family
    raise CheckpointError(f"{path} is no model of a family that is known here; supported: {_supported()}.")


def _asked(family: Family, ask: Callable[[], T]) -> T | None:
    """What a family says; one of another package that breaks is passed over, with a warning."""
    try:
        return ask()
    except MuybridgeError:
        raise
    except Exception as error:  # a stranger's function may raise anything
        if family in built_in_families():
            raise
        warnings.warn(
            f"The family {family.name} cannot tell its models: {type(error).__name__}: {error}. It is passed over; "
            "mend or uninstall its package.",
            stacklevel=2,
        )
        return None


def _unsupported(folder: Path, name: object) -> CheckpointError:
    """The error for a folder whose class of pipeline, `name`, makes no videos here, with what does."""
    return CheckpointError(f"{folder} is a {name}; supported: {_supported()}.")


def _supported() -> str:
    *first, last = [family.supported for family in known_families()]
    return f"{'; '.join(first)}; and {last}"


def _index(folder: Path) -> SettingsView:
    """The `model_index.json`; empty where it is missing or damaged, since a published folder may do without."""
    from muybridge.checkpoints.parts import read_model_index

    try:
        return read_model_index(folder)
    except CheckpointError:
        return {}


def _in_turn(name: object) -> Iterator[Family]:
    built_in, entries = built_in_families(), _entries()
    offered = [entry for entry in entries if entry.name == name and name not in [each.name for each in built_in]]
    if len(offered) > 1:
        raise ConfigError(f"Several packages offer the family {name}: {_packages(offered)}. Uninstall all but one.")
    for entry in offered:
        yield _load(entry)
    yield from built_in
    yield from _loaded([entry for entry in entries if entry not in offered])


def _entries() -> list[EntryPoint]:
    """Of installed packages; nothing is imported. Takes milliseconds."""
    return list(entry_points(group=ENTRY_POINT_GROUP))


def _offered_families() -> list[Family]:
    return list(_loaded(_entries()))


def _loaded(entries: list[EntryPoint]) -> Iterator[Family]:
    for entry in entries:
        try:
            yield _load(entry)
        except MuybridgeError as error:
            warnings.warn(f"{error} It is left out.", stacklevel=4)


def _load(entry: EntryPoint) -> Family:
    from muybridge.motion.discovery import load_entry, origin_of_entry

    family = load_entry(entry, "family")
    if not isinstance(family, Family) or family.name != entry.name:
        raise ConfigError(
            f"The family {entry.name!r} of {origin_of_entry(entry)} is no record of that name: {entry.value!r} must be "
            f"a muybridge.pipelines.family.Family called {entry.name!r}."
        )
    return family


def _packages(entries: list[EntryPoint]) -> str:
    from muybridge.motion.discovery import origin_of_entry

    return ", ".join(sorted(str(origin_of_entry(entry)) for entry in entries))
