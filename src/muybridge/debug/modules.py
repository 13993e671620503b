"""Which modules a tool looks at, and what they are called: of one network, or of all networks of a pipeline."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from torch import nn

from muybridge.errors import ConfigError


class HasComponents(Protocol):
    """A pipeline of diffusers, ours among them."""

    @property
    def components(self) -> Mapping[str, object]:
        """Parts by name; those that are networks are looked at."""
        ...


Target = nn.Module | Mapping[str, nn.Module] | HasComponents
"""What a tool is put around: a network, networks by name, or a pipeline."""


def roots_of(target: Target) -> dict[str, nn.Module]:
    """The networks by name; a single one has the empty name.

    Raises:
        ConfigError: there is no network in `target`.
    """
    if isinstance(target, nn.Module):
        return {"": target}
    parts = target if isinstance(target, Mapping) else getattr(target, "components", None)
    found = {str(name): part for name, part in dict(parts or {}).items() if isinstance(part, nn.Module)}
    if not found:
        raise ConfigError(f"A {type(target).__name__} has no networks to look at; give a module or a pipeline.")
    return found


def modules_of(target: Target) -> dict[str, nn.Module]:
    """Every module once, by its full name (`unet.down_blocks.0.resnets.0.conv1`), parents before children."""
    named: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for part, root in roots_of(target).items():
        for name, module in root.named_modules():
            # A motion adapter is a part of a pipeline, and its modules are parts of the backbone too.
            if id(module) not in seen:
                seen.add(id(module))
                named[".".join(filter(None, (part, name)))] = module
    return named


def select_modules(target: Target, patterns: str | Sequence[str]) -> dict[str, nn.Module]:
    """The modules whose full names match one of the patterns (`*`, `?`, `[...]`; `*` goes across dots too).

    Raises:
        ConfigError: a pattern that matches nothing; the message has the nearest names.
    """
    named = modules_of(target)
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    chosen: set[str] = set()
    for pattern in wanted:
        matches = {name for name in named if fnmatchcase(name, pattern)}
        if not matches:
            raise ConfigError(f"No module matches {pattern!r}. {nearest_names(pattern, named)}")
        chosen |= matches
    return {name: module for name, module in named.items() if name in chosen}


def nearest_names(wanted: str, names: Iterable[str]) -> str:
    """A sentence with the names most like `wanted`."""
    known = [name for name in names if name]
    near = difflib.get_close_matches(wanted.replace("*", ""), known, n=4, cutoff=0.3) or known[:4]
    return f"Nearest: {', '.join(near)}." if near else "The network has no named modules."


def label(name: str, module: nn.Module) -> str:
    """Name and class, for messages."""
    return f"{name} ({type(module).__name__})" if name else type(module).__name__
