"""Classifier-free guidance as a wrapper around a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(latents [b, c, f, h, w], timestep, text states [b, n, d]) -> prediction like the latents."""


@dataclass(frozen=True)
class Guidance:
    """`unconditional + scale * (conditional - unconditional)`; a denoiser made from a network and its text states.

    Attributes:
        predict: the network.
        positive: text states `[b, n, d]` of what is wanted.
        negative: of what is not, or None where guidance is off.
        scale: 1 is off. Source: Ho and Salimans, arXiv 2207.12598.
        batched: both branches in one call (fast), or one after the other (half the memory); the same numbers.
    """

    predict: Predict
    positive: Tensor
    negative: Tensor | None
    scale: float
    batched: bool = True

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The guided prediction for `latents [b, c, f, h, w]`."""
        if self.negative is None:
            return self.predict(latents, timestep, self.positive)
        if self.batched:
            text = torch.cat([self.negative, self.positive])
            unconditional, conditional = self.predict(torch.cat([latents, latents]), timestep, text).chunk(2)
        else:
            unconditional = self.predict(latents, timestep, self.negative)
            conditional = self.predict(latents, timestep, self.positive)
        return torch.lerp(unconditional, conditional, self.scale)
