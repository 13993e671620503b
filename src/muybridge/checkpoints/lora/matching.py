"""From a LoRA file to what it changes in given networks, with nothing left over."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from muybridge.checkpoints.lora.names import (
    AdaptableLayer,
    adaptable_layers,
    described,
    described_model,
    spelled_layers,
    weight_shape,
)
from muybridge.checkpoints.lora.reading import LoraPair
from muybridge.errors import CheckpointError
from muybridge.weights.names import listed

AlphaMode = Literal["kohya", "official"]
"""Whether a change is scaled by alpha / rank, or (as AnimateDiff's program does) not at all."""
ALPHA_MODES: tuple[AlphaMode, ...] = ("kohya", "official")

_MID_MODULE = re.compile(r"^mid_block_motion_modules_")


@dataclass(frozen=True)
class LoraChange:
    """How one layer's weight changes: by `alpha / rank * up @ down`; factors have the layer's own number of axes.

    With a `magnitude` `[out]` it is a DoRA: the rows of the changed weight are brought to these lengths.
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]


def match_lora(
    path: Path, pairs: Sequence[LoraPair], networks: Mapping[str, nn.Module], alpha_mode: AlphaMode
) -> dict[str, dict[str, LoraChange]]:
    """Find the layer of every pair.

    Args:
        path: of the file, for messages.
        pairs: what is in it.
        networks: by part ("backbone", "text_encoder", ...).
        alpha_mode: see `AlphaMode`.

    Returns:
        For each part with changes: the change by name of the layer.

    Raises:
        CheckpointError: no layer found, some not found, or found with other sizes; the message names the first.

    Warns:
        UserWarning: a motion LoRA changes a motion module in the middle, which this model does not have.
    """
    layers = {part: adaptable_layers(network) for part, network in networks.items()}
    spellings = {part: spelled_layers(found, _rows(networks[part])) for part, found in layers.items()}
    changes: dict[str, dict[str, LoraChange]] = {}
    origins: dict[tuple[str, str], str] = {}
    lost: list[LoraPair] = []
    unfit: list[str] = []
    for pair in pairs:
        candidates = [pair.part] if pair.part is not None else list(networks)
        part = next((part for part in candidates if pair.name in spellings.get(part, {})), None)
        if part is None:
            lost.append(pair)
            continue
        name = spellings[part][pair.name]
        if (part, name) in origins:
            raise CheckpointError(f"{path} has two changes for one layer: {origins[part, name]} and {pair.key}.")
        origins[part, name] = pair.key
        change = _fitted(pair, layers[part][name], alpha_mode)
        if change is None:
            sizes = f"{list(pair.up.shape)} x {list(pair.down.shape)}"
            unfit.append(f"{pair.key} ({sizes} for a weight of {list(weight_shape(layers[part][name]))})")
        else:
            changes.setdefault(part, {})[name] = change
    if unfit or not changes:
        raise CheckpointError(_describe_misfit(path, pairs, layers, unfit))
    _report_lost(path, lost, bool(lost) and _has_mid_module(networks))
    return changes


def _rows(network: nn.Module) -> int | None:
    rows = getattr(getattr(network, "config", None), "layers_per_block", None)
    return rows if isinstance(rows, int) else None


def _fitted(pair: LoraPair, layer: AdaptableLayer, alpha_mode: AlphaMode) -> LoraChange | None:
    shape, rank = weight_shape(layer), pair.rank
    # Some programs write a convolution of 1 x 1 with two axes, some a linear layer with four.
    kernels = [tuple(tensor.shape[2:]) or (1, 1) for tensor in (pair.down, pair.up)]
    if kernels != [shape[2:] or (1, 1), (1, 1)]:
        return None
    if tuple(pair.down.shape[:2]) != (rank, shape[1]) or tuple(pair.up.shape[:2]) != (shape[0], rank):
        return None
    alpha = float(rank) if pair.alpha is None or alpha_mode == "official" else pair.alpha
    ones = (1,) * (len(shape) - 2)
    down, up = pair.down.reshape(rank, *shape[1:]), pair.up.reshape(shape[0], rank, *ones)
    return LoraChange(down, up, alpha, pair.magnitude)


def _describe_misfit(
    path: Path, pairs: Sequence[LoraPair], layers: Mapping[str, Mapping[str, AdaptableLayer]], unfit: list[str]
) -> str:
    own = described_model(layers["backbone"])
    made_for = described([pair for pair in pairs if pair.part in (None, "backbone")] or pairs)
    if unfit:
        return (
            f"{path} is a LoRA for {made_for} and this model is {own}: {len(unfit)} of its {len(pairs)} layers have "
            f"other sizes: {listed(unfit)}."
        )
    if "motion" in made_for and not any("motion_modules" in name for name in layers["backbone"]):
        advice = "This model has no motion modules; attach a motion adapter first, then load the LoRA."
    else:
        advice = f"This model is {own}; use a LoRA that was made for it."
    names = listed([pair.key for pair in pairs])
    return f"{path} is a LoRA for {made_for}: none of its {len(pairs)} layers is here (first: {names}). {advice}"


def _has_mid_module(networks: Mapping[str, nn.Module]) -> bool:
    return any(_MID_MODULE.match(name.replace(".", "_")) for name in adaptable_layers(networks["backbone"]))


def _report_lost(path: Path, lost: Sequence[LoraPair], has_mid_module: bool) -> None:
    skippable = [] if has_mid_module else [pair for pair in lost if _MID_MODULE.match(pair.name)]
    if wrong := [pair.key for pair in lost if pair not in skippable]:
        raise CheckpointError(
            f"{path} has {len(wrong)} layers that this model does not have; nothing was loaded: {listed(wrong)}. Use a "
            "LoRA that was made for it."
        )
    if skippable:
        warnings.warn(
            f"{path} was made for motion modules of version 2; this model has none in its middle, so these were "
            f"skipped: {listed([pair.key for pair in skippable])}.",
            stacklevel=4,
        )
