"""Names of motion sites: chosen by patterns, and those that a U-Net has in all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from muybridge.errors import ConfigError

T = TypeVar("T")

_OF_A_LEVEL = re.compile(r"(down|up)_blocks\.(\d+)\.motion_modules\.(\d+)")


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


def sites_of_unet(layers: Sequence[int], mid: bool) -> list[str]:
    """Every site of a U-Net whose levels are the same on the way down and up.

    Args:
        layers: modules of each level on the way down, finest first; on the way up each has one more.
        mid: whether the middle has one.
    """
    down = [f"down_blocks.{level}.motion_modules.{i}" for level, count in enumerate(layers) for i in range(count)]
    up = [f"up_blocks.{level}.motion_modules.{i}" for level, n in enumerate(reversed(layers)) for i in range(n + 1)]
    return [*down, *(["mid_block.motion_modules.0"] if mid else []), *up]


def missing_sites(names: Iterable[str]) -> list[str]:
    """Sites without which a set of motion modules for a U-Net is no whole set.

    All published sets have as many modules at every level, and one more on the way up; in the middle some have one.

    Args:
        names: of the sites that there are.
    """
    present = set(names)
    found = [match.groups() for name in present if (match := _OF_A_LEVEL.fullmatch(name))]
    levels = max((int(level) + 1 for _, level, _ in found), default=0)
    layers = max((int(index) + (side == "down") for side, _, index in found), default=0)
    expected = sites_of_unet([max(layers, 1)] * levels, mid=False)
    return [name for name in expected if name not in present]
