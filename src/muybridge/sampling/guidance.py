"""Classifier-free guidance as a wrapper around a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[..., Tensor]
"""(latents [b, c, f, h, w], timestep, and each condition by its name) -> prediction like the latents."""


@dataclass(frozen=True)
class Guidance:
    """`unconditional + scale * (conditional - unconditional)`; a denoiser made from a network and its conditions.

    Attributes:
        predict: the network.
        positive: conditions by name, text states for example, of what is wanted; each `[b, ...]`.
        negative: the same names, of what is not wanted; or None where guidance is off.
        scale: 1 is off. Source: Ho and Salimans, arXiv 2207.12598.
        batched: both branches in one call (fast), or one after the other (half the memory); the same numbers.
    """

    predict: Predict
    positive: Mapping[str, Tensor]
    negative: Mapping[str, Tensor] | None
    scale: float
    batched: bool = True

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The guided prediction for `latents [b, c, f, h, w]`."""
        if self.negative is None:
            return self.predict(latents, timestep, **self.positive)
        if self.batched:
            both = {name: torch.cat([self.negative[name], value]) for name, value in self.positive.items()}
            unconditional, conditional = self.predict(torch.cat([latents, latents]), timestep, **both).chunk(2)
        else:
            unconditional = self.predict(latents, timestep, **self.negative)
            conditional = self.predict(latents, timestep, **self.positive)
        return torch.lerp(unconditional, conditional, self.scale)
