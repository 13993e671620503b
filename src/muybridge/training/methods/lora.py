"""Training a LoRA: any diffusion method, with low-rank changes to some layers as all that learns."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from muybridge.checkpoints.lora import AttachedLoras, Dialect, LoraChange, adaptable_layers, write_lora
from muybridge.errors import ConfigError
from muybridge.pipelines.family import LORA_LAYERS, LoraTargets
from muybridge.training.data import Batch
from muybridge.training.methods.denoise import DenoisingMethod, ImageDiffusionMethod
from muybridge.training.objective.diffusion import DiffusionObjective, Drawn
from muybridge.types import SettingsDict

DiffusionMethod = ImageDiffusionMethod | DenoisingMethod

_NAME = "trained"


class LoraMethod(nn.Module):
    """A diffusion method of which nothing but a LoRA of its denoising network is trained.

    Batches and losses are the method's. The network's own weights stay bit for bit what they are.
    """

    def __init__(
        self,
        method: DiffusionMethod,
        layers: str = "spatial",
        rank: int = 16,
        alpha: float | None = None,
        seed: int = 0,
        targets: LoraTargets | None = None,
    ) -> None:
        """Freeze `method` and put a LoRA into its network, where it changes nothing until trained.

        Args:
            method: what is trained; its text encoder and VAE are frozen too.
            layers: a name of `targets.layers`, or a regular expression that the name of a layer must contain.
            rank: of every change.
            alpha: the change is scaled by alpha / rank; by default half the rank, as in EasyAnimate.
            seed: of the first factors; the second begin at zero.
            targets: how LoRAs name the network and its layers; as in a U-Net if not given.

        Raises:
            ConfigError: a rank below 1, an alpha that is not a finite number above 0, or layers that match nothing or
                are no regular expression.
        """
        super().__init__()
        alpha = rank / 2 if alpha is None else alpha
        if rank < 1 or not (math.isfinite(alpha) and alpha > 0):
            raise ConfigError(f"A LoRA needs a rank of at least 1 and an alpha above 0; given {rank} and {alpha}.")
        self.method = method.requires_grad_(False)
        self._targets = targets or LoraTargets()
        self._attached = AttachedLoras(method.backbone)
        pattern = layer_pattern(layers, self._targets.layers)
        self._attached.attach(_NAME, _fresh(method.backbone, pattern, rank, alpha, seed))
        self._attached.weigh({_NAME: 1.0})
        self._attached.train(_NAME)

    def train(self, mode: bool = True) -> LoraMethod:
        """Everything stays in evaluation mode: what learns has no other."""
        super().train(False)
        self.training = mode
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The method's losses."""
        return self.method(batch, generator)

    @property
    def objective(self) -> DiffusionObjective:
        """The method's."""
        return self.method.objective

    def encode(self, batch: Batch) -> tuple[Tensor, SettingsDict]:
        """As the method does."""
        return self.method.encode(batch)

    def predict(self, drawn: Drawn, told: SettingsDict) -> Tensor:
        """What the network says, with the LoRA."""
        return self.method.predict(drawn, told)

    def without(self) -> AbstractContextManager[None]:
        """While it is entered, the network runs without the LoRA."""
        return self._attached.hidden()

    def save(self, path: str | os.PathLike[str], dialect: Dialect = "diffusers") -> Path:
        """Write the LoRA as it is now, as a `.safetensors` file that `load_lora_weights` of a pipeline reads.

        Raises:
            ConfigError: another ending of the file's name, or an unknown dialect.
            OutputError: the file cannot be written.
        """
        return write_lora(path, {"backbone": self._attached.changes(_NAME)}, self._targets.root, dialect)

    def remove(self) -> None:
        """Take the LoRA out of the network, which is then what it was."""
        self._attached.remove([_NAME])


def layer_pattern(layers: str, known: Mapping[str, str] = LORA_LAYERS) -> re.Pattern[str]:
    """What the name of a layer must contain to learn: a name of `known`, or a regular expression as it is.

    Raises:
        ConfigError: no regular expression.
    """
    try:
        return re.compile(known.get(layers, layers))
    except re.error as error:
        raise ConfigError(
            f"{layers!r} is no regular expression ({error}); use one, or one of {', '.join(known)}."
        ) from error


def _fresh(network: nn.Module, pattern: re.Pattern[str], rank: int, alpha: float, seed: int) -> dict[str, LoraChange]:
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, LoraChange] = {}
    for name, layer in adaptable_layers(network).items():
        shape = layer.weight.shape
        if not pattern.search(name) or math.prod(shape[2:]) != 1:
            continue
        down = torch.empty(rank, *shape[1:])
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        changes[name] = LoraChange(down, torch.zeros(shape[0], rank, *shape[2:]), alpha)
    if not changes:
        raise ConfigError(
            f"No layer of this {type(network).__name__} matches {pattern.pattern!r}; use one of "
            f"{', '.join(LORA_LAYERS)}, or a regular expression for names of its linear layers."
        )
    return changes
