"""Motion modules alone, in a backbone that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Self

import torch
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.pipelines.family import Networks, Training
from muybridge.training.methods.denoise import DenoisingMethod, overridden
from muybridge.training.objective.diffusion import DiffusionObjective


class MotionMethod(DenoisingMethod):
    """Motion modules alone: the rest of the backbone, text encoder and VAE stay as they are.

    Batches and loss are those of `DenoisingMethod`.
    """

    def __init__(
        self, networks: Networks, objective: DiffusionObjective, how: Training, keeps_first: bool = False
    ) -> None:
        """The backbone must have the motion adapter to train attached.

        Args:
            networks: of the model.
            objective: noise levels and targets.
            how: what its family makes of a batch.
            keeps_first: whether the modules do something already, so that their weights of now, which are kept in the
                memory of the CPU, stand for what was before training. Fresh ones add nothing.

        Raises:
            ConfigError: there is none, or networks that cannot be trained.
        """
        super().__init__(networks, objective, how)
        self.requires_grad_(False)
        if self.backbone.motion_adapter is None:
            raise ConfigError("There is no motion adapter to train; attach one with set_motion_adapter(adapter).")
        self.backbone.motion_adapter.requires_grad_(True)
        self._first = _copied(self.backbone.motion_adapter) if keeps_first else None

    def train(self, mode: bool = True) -> Self:
        """Switch the motion modules; everything else stays in evaluation mode."""
        nn.Module.train(self, False)
        if self.backbone.motion_adapter is not None:
            self.backbone.motion_adapter.train(mode)
        self.training = mode
        return self

    def without(self) -> AbstractContextManager[None]:
        """While it is entered, the motion modules are as they were before training; fresh ones add nothing."""
        adapter = self.backbone.motion_adapter
        if self._first is None or adapter is None:
            return overridden(self.backbone, motion_strength=0.0)
        return _holding(adapter, self._first)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in module.named_parameters()}


@contextmanager
def _holding(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    own = _copied(module)
    _fill(module, weights)
    try:
        yield
    finally:
        _fill(module, own)


@torch.no_grad()
def _fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])
