"""How large motion modules of every kind are in the full-size backbones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.motion import KindEntry, MotionHost, list_kinds
from muybridge.motion.registry import build_motion_module, spec_for_site


@dataclass(frozen=True)
class KindSize:
    """A motion kind, and how many parameters its default settings have in each full-size backbone.

    Attributes:
        entry: name, package, class and what is wrong with it.
        num_parameters: by backbone; None where the defaults do not fit it or make no module.
    """

    entry: KindEntry
    num_parameters: dict[str, int | None]


def kind_sizes() -> list[KindSize]:
    """All kinds with their sizes in Stable Diffusion 1.5's U-Net and EasyAnimate V3's transformer; needs no memory."""
    with torch.device("meta"):
        hosts: dict[str, MotionHost] = {"unet": UNet3DConditionModel(), "dit": Transformer3DModel()}
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
