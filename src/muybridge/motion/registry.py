"""Motion modules by the name of their kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

from muybridge.errors import ConfigError
from muybridge.motion.contract import ModuleSpec, MotionModule, MotionModuleConfig

M = TypeVar("M", bound=MotionModule)

_KINDS: dict[str, type[MotionModule]] = {}


def register_motion_module(kind: str) -> Callable[[type[M]], type[M]]:
    """Class decorator that makes a motion module known under a name.

    Raises:
        ConfigError: another class has that name already.
    """

    def register(cls: type[M]) -> type[M]:
        if _KINDS.get(kind, cls) is not cls:
            raise ConfigError(f"Motion module kind {kind!r} is already taken by {_KINDS[kind].__qualname__}.")
        _KINDS[kind] = cls
        return cls

    return register


def motion_kinds() -> list[str]:
    """Names of all registered kinds."""
    return sorted(_KINDS)


def motion_module_class(kind: str) -> type[MotionModule]:
    """The class of a kind.

    Raises:
        ConfigError: the kind is unknown; the message lists the known ones.
    """
    if kind not in _KINDS:
        raise ConfigError(f"Unknown motion module kind {kind!r}. Known kinds: {', '.join(motion_kinds())}.")
    return _KINDS[kind]


def kind_of(module: MotionModule) -> str:
    """The name under which the module's class is registered."""
    for kind, cls in _KINDS.items():
        if type(module) is cls:
            return kind
    raise ConfigError(f"{type(module).__qualname__} is not registered; decorate it with @register_motion_module(kind).")


def build_motion_module(spec: ModuleSpec) -> MotionModule:
    """Make a fresh module.

    Raises:
        ConfigError: unknown kind, or settings its config does not have.
    """
    cls = motion_module_class(spec.kind)
    return cls(make_config(spec.kind, spec.config), spec.width)


def make_config(kind: str, values: dict) -> MotionModuleConfig:
    """Turn plain values into the frozen config of a kind, refusing names it does not have."""
    config_class = motion_module_class(kind).config_class
    allowed = {field.name for field in fields(config_class)}
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise ConfigError(
            f"Motion kind {kind!r} has no setting {', '.join(unknown)}. Its settings: {', '.join(sorted(allowed))}."
        )
    return config_class(**values)
