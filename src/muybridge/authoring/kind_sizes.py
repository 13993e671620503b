"""How large motion modules of every kind are in the full-size backbones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from muybridge.motion import KindEntry, MotionHost, list_kinds
from muybridge.motion.registry import build_motion_module, spec_for_site
from muybridge.pipelines.families import known_families
from muybridge.pipelines.family import FullSize


@dataclass(frozen=True)
class KindSize:
    """A motion kind, and how many parameters its default settings have in each full-size backbone.

    Attributes:
        entry: name, package, class and what is wrong with it.
        num_parameters: by backbone; None where the defaults do not fit it or make no module.
    """

    entry: KindEntry
    num_parameters: dict[str, int | None]


def full_size_backbones() -> list[FullSize]:
    """Of the families that say what theirs is."""
    return [family.full_size for family in known_families() if family.full_size is not None]


def kind_sizes() -> list[KindSize]:
    """All kinds with their sizes in the backbones of all families; needs no memory."""
    with torch.device("meta"):
        hosts = {backbone.key: backbone.make() for backbone in full_size_backbones()}
    return [KindSize(entry, {name: _size(host, entry) for name, host in hosts.items()}) for entry in list_kinds()]


def _size(host: MotionHost, entry: KindEntry) -> int | None:
    if entry.module_class is None:
        return None
    total = 0
    try:
        with torch.device("meta"):
            for site in host.motion_sites().values():
                module = build_motion_module(spec_for_site(site, entry.kind))
                total += sum(parameter.numel() for parameter in module.parameters())
    except Exception:  # whatever a class of somebody else's does; the list of kinds goes on
        return None
    return total
