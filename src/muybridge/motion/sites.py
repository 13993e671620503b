"""Choosing motion sites by patterns of their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from muybridge.errors import ConfigError

T = TypeVar("T")


def choose_by_pattern(names: Iterable[str], choices: Mapping[str, T]) -> dict[str, T]:
    """What each name is given by the first pattern that fits it; names that none fits are left out.

    Args:
        names: of sites, such as `up_blocks.1.motion_modules.0`.
        choices: from patterns to values. `*` stands for any letters, dots included: `up_blocks.*`.

    Raises:
        ConfigError: a pattern decides over no site, because none fits it or those before it have taken all.
    """
    names = list(names)
    chosen: dict[str, T] = {}
    for pattern, value in choices.items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        new = [name for name in fitting if name not in chosen]
        if not fitting:
            raise ConfigError(
                f"No motion site is called {pattern!r}. There are {len(names)}: {', '.join(names[:3])}"
                f"{', ...' if len(names) > 3 else ''}; * stands for any letters, as in 'up_blocks.*'."
            )
        if not new:
            raise ConfigError(
                f"The pattern {pattern!r} has no effect: earlier patterns have all of its sites. Put it before them."
            )
        chosen.update(dict.fromkeys(new, value))
    return {name: chosen[name] for name in names if name in chosen}
