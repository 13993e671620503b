"""Motion modules by the name of their kind: built in, registered by a decorator, or offered by another package."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

from muybridge.errors import ConfigError
from muybridge.motion.contract import ModuleSpec, MotionModule, MotionModuleConfig, MotionSite
from muybridge.motion.discovery import (
    OWN_ORIGIN,
    Origin,
    load_entry,
    offered_kinds,
    origin_of_class,
    origin_of_entry,
    top_package,
)
from muybridge.types import SettingsView

M = TypeVar("M", bound=MotionModule)


@dataclass(frozen=True)
class _Registration:
    cls: type[MotionModule]
    origin: Origin | None  # None until it is known that no other package offers the name


@dataclass(frozen=True)
class KindEntry:
    """One line of the list of kinds.

    Attributes:
        kind: the name.
        origin: the package it comes from; None where several claim it.
        module_class: None where it cannot be had.
        error: why not, or what is wrong besides.
    """

    kind: str
    origin: Origin | None
    module_class: type[MotionModule] | None
    error: str | None = None


_KINDS: dict[str, _Registration] = {}


def register_motion_module(kind: str) -> Callable[[type[M]], type[M]]:
    """Class decorator that makes a motion module known under a name.

    The same class defined anew (a module imported again, a notebook cell run again) takes its own place.

    Raises:
        ConfigError: another class has that name already, or the class has another name.
    """

    def register(cls: type[M]) -> type[M]:
        if not (isinstance(cls, type) and issubclass(cls, MotionModule)):
            raise ConfigError(f"Only a subclass of MotionModule can be the motion kind {kind!r}; given {cls!r}.")
        known = _KINDS.get(kind)
        if known is not None and _full_name(known.cls) != _full_name(cls):
            raise ConfigError(
                f"Motion module kind {kind!r} is already taken by {known.cls.__qualname__} of "
                f"{known.origin or origin_of_class(known.cls)}; {cls.__qualname__} of {origin_of_class(cls)} needs "
                "another name."
            )
        if vars(cls).get("kind", kind) != kind:
            raise ConfigError(f"{cls.__qualname__} is already registered as {cls.kind!r}; it cannot be {kind!r} too.")
        cls.kind = kind
        _KINDS[kind] = _Registration(cls, OWN_ORIGIN if origin_of_class(cls) == OWN_ORIGIN else None)
        return cls

    return register


def motion_kinds() -> list[str]:
    """Names of all kinds: those registered, and those that installed packages offer, without importing these."""
    return sorted(_KINDS.keys() | offered_kinds().keys())


def motion_module_class(kind: str) -> type[MotionModule]:
    """The class of a kind; imports the package that offers it, where it is not registered yet.

    Raises:
        ConfigError: the kind is unknown (the message lists the known ones and the nearest), cannot be imported, or is
            offered by two packages.
    """
    return _find(kind).cls


def kind_origin(kind: str) -> Origin:
    """The package that a kind comes from. Raises as `motion_module_class`."""
    return _find(kind).origin or OWN_ORIGIN


def list_kinds() -> list[KindEntry]:
    """Every kind there is, with what is wrong with it, if anything. Imports all packages that offer one."""
    offered = offered_kinds()
    entries = []
    for kind in motion_kinds():
        try:
            found = _find(kind)
        except ConfigError as error:
            origins = [origin_of_entry(entry) for entry in offered.get(kind, [])]
            entries.append(KindEntry(kind, origins[0] if len(origins) == 1 else None, None, str(error)))
            continue
        clash = None
        if found.origin == OWN_ORIGIN and offered.get(kind):
            clash = _clash(kind, [OWN_ORIGIN, *map(origin_of_entry, offered[kind])]) + " The built-in one is used."
        entries.append(KindEntry(kind, found.origin, found.cls, clash))
    return entries


def _find(kind: str) -> _Registration:
    known = _KINDS.get(kind)
    if known is not None and known.origin is not None:
        return known
    entries = offered_kinds(kind).get(kind, [])
    if known is None and not entries:
        raise ConfigError(_unknown(kind))
    claims = [origin_of_entry(entry) for entry in entries]
    if known is not None and all(top_package(entry.value) != top_package(known.cls.__module__) for entry in entries):
        claims.insert(0, origin_of_class(known.cls))
    if len(claims) > 1:
        raise ConfigError(_clash(kind, claims))
    if known is None:
        cls = load_entry(entries[0])
        if _KINDS.get(kind) is None or _KINDS[kind].cls is not cls:
            register_motion_module(kind)(cls)
    _KINDS[kind] = replace(_KINDS[kind], origin=claims[0])
    return _KINDS[kind]


def _unknown(kind: str) -> str:
    kinds = motion_kinds()
    near = difflib.get_close_matches(kind, kinds, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"Unknown motion module kind {kind!r}{hint} Known kinds: {', '.join(kinds)}."


def _clash(kind: str, claims: list[Origin]) -> str:
    return (
        f"The motion kind {kind!r} is offered by {len(claims)} packages: {' and '.join(map(str, claims))}. "
        "Uninstall all but one, or ask an author for another name."
    )


def _full_name(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def kind_of(module: MotionModule) -> str:
    """The name under which the module's class is registered."""
    kind = vars(type(module)).get("kind")
    if not kind:
        raise ConfigError(
            f"{type(module).__qualname__} is not registered; decorate it with @register_motion_module(kind)."
        )
    return kind


def build_motion_module(spec: ModuleSpec) -> MotionModule:
    """Make a fresh module.

    Raises:
        ConfigError: unknown kind, settings its config does not have, or a width missing that it depends on.
    """
    cls = motion_module_class(spec.kind)
    config = make_config(spec.kind, spec.config)
    needed = {f"{name}_width" for name in cls.inputs_of(config)}
    if missing := sorted(needed - spec.context_widths.keys()):
        raise ConfigError(
            f"The motion kind {spec.kind!r} depends on {', '.join(missing)}; name them in context_widths, or make the "
            "module for a site of a backbone."
        )
    widths = {name: spec.context_widths[name] for name in sorted(needed)}
    module = cls(config, spec.width, **widths)
    if module.context_widths != widths:
        raise ConfigError(
            f"{cls.__qualname__} must hand on to MotionModule.__init__ the widths that it declares: "
            f"super().__init__(config, width, {', '.join(f'{name}={name}' for name in widths)})."
        )
    return module


def spec_for_site(site: MotionSite, kind: str, config: MotionModuleConfig | SettingsView | None = None) -> ModuleSpec:
    """How to build a module of a kind for a site, with the widths that it needs.

    Raises:
        ConfigError: unknown kind or settings, or a site without an input that the kind reads.
    """
    values = config.to_dict() if isinstance(config, MotionModuleConfig) else dict(config or {})
    inputs = motion_module_class(kind).inputs_of(make_config(kind, values))
    return ModuleSpec(kind, site.width, values, site.context_widths(inputs))


def spec_of(module: MotionModule) -> ModuleSpec:
    """How to build a module like this one."""
    return ModuleSpec(kind_of(module), module.width, module.config.to_dict(), dict(module.context_widths))


def make_config(kind: str, values: SettingsView) -> MotionModuleConfig:
    """Turn plain values into the frozen config of a kind, refusing names it does not have."""
    config_class = motion_module_class(kind).config_class
    allowed = {field.name for field in fields(config_class) if field.init}
    unknown = sorted(values.keys() - allowed)
    if unknown:
        raise ConfigError(
            f"Motion kind {kind!r} has no setting {', '.join(unknown)}. Its settings: {', '.join(sorted(allowed))}."
        )
    return config_class(**values)
