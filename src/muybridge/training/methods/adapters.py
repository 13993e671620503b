"""Motion modules alone, in a backbone that stays as it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Self

from torch import nn

from muybridge.errors import ConfigError
from muybridge.pipelines.family import Networks, Training
from muybridge.training.methods.denoise import DenoisingMethod, overridden
from muybridge.training.objective.diffusion import DiffusionObjective


class MotionMethod(DenoisingMethod):
    """Motion modules alone: the rest of the backbone, text encoder and VAE stay as they are.

    Batches and loss are those of `DenoisingMethod`.
    """

    def __init__(self, networks: Networks, objective: DiffusionObjective, how: Training) -> None:
        """The backbone must have the motion adapter to train attached.

        Raises:
            ConfigError: there is none, or networks that cannot be trained.
        """
        super().__init__(networks, objective, how)
        self.requires_grad_(False)
        if self.backbone.motion_adapter is None:
            raise ConfigError("There is no motion adapter to train; attach one with set_motion_adapter(adapter).")
        self.backbone.motion_adapter.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Switch the motion modules; everything else stays in evaluation mode."""
        nn.Module.train(self, False)
        if self.backbone.motion_adapter is not None:
            self.backbone.motion_adapter.train(mode)
        self.training = mode
        return self

    def without(self) -> AbstractContextManager[None]:
        """While it is entered, the backbone runs without what the motion modules add."""
        return overridden(self.backbone, motion_strength=0.0)
