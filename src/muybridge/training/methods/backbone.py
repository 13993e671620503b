"""The denoising network of a video model, all of it or what names choose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

from torch import nn

from muybridge.errors import ConfigError
from muybridge.pipelines.family import Networks, Training
from muybridge.training.methods.denoise import DenoisingMethod
from muybridge.training.objective.diffusion import DiffusionObjective

TRAINED: Mapping[str, str] = {"all": "", "motion": r"(motion_modules|attn_temporal)\."}
"""Names for patterns of what is trained."""


def trained_pattern(train: str) -> re.Pattern[str]:
    """What the name of a parameter must contain to be trained: of `TRAINED`, or a regular expression as it is.

    Raises:
        ConfigError: no regular expression.
    """
    try:
        return re.compile(TRAINED.get(train, train))
    except re.error as error:
        raise ConfigError(
            f"{train!r} is no regular expression ({error}); use one, or one of {', '.join(TRAINED)}."
        ) from error


class BackboneMethod(DenoisingMethod):
    """What of the backbone is chosen by the names of its parameters; all else stays as it is.

    Batches and loss are those of `DenoisingMethod`.
    """

    def __init__(self, networks: Networks, objective: DiffusionObjective, how: Training, train: str = "all") -> None:
        """Choose what is trained, see `trained_pattern`.

        Raises:
            ConfigError: nothing is chosen, no regular expression, or networks that cannot be trained.
        """
        super().__init__(networks, objective, how)
        pattern = trained_pattern(train)
        self.requires_grad_(False)
        chosen = [parameter for name, parameter in self.backbone.named_parameters() if pattern.search(name)]
        if not chosen:
            raise ConfigError(
                f"No parameter of this {type(self.backbone).__name__} matches {train!r}; use one of "
                f"{', '.join(TRAINED)}, or a regular expression such as transformer_blocks[.](6|7|8)[.]."
            )
        for parameter in chosen:
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Switch the backbone; everything else stays in evaluation mode."""
        nn.Module.train(self, False)
        self.backbone.train(mode)
        self.training = mode
        return self
