"""LoRAs in networks without numbers, for plans of memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from muybridge.checkpoints.lora import LoraPair, inject, match_lora, read_lora

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""Parts that LoRAs change besides the backbone."""


def read_loras(paths: Iterable[str | os.PathLike[str]]) -> dict[Path, list[LoraPair]]:
    """Read LoRAs, which on disk are small beside what they change.

    Raises:
        CheckpointError: as of `read_lora`.
    """
    return {Path(path): read_lora(path) for path in paths}


def attach_outlines(loras: Mapping[Path, list[LoraPair]], backbone: str, parts: Mapping[str, nn.Module]) -> None:
    """Put LoRA layers without numbers where loading puts layers with numbers.

    Args:
        loras: what `read_loras` gave.
        backbone: the part that a LoRA's "backbone" is.
        parts: networks on the device on which plans are made.

    Raises:
        CheckpointError: as of `match_lora`.
    """
    found = {"backbone": parts.get(backbone), **{name: parts.get(name) for name in TEXT_ENCODERS}}
    networks = {name: network for name, network in found.items() if network is not None}
    for number, (path, pairs) in enumerate(loras.items()):
        outlines = [replace(pair, down=torch.empty(pair.down.shape), up=torch.empty(pair.up.shape)) for pair in pairs]
        for name, changes in match_lora(path, outlines, networks, "kohya").items():
            inject(networks[name], f"lora_{number}", changes)
