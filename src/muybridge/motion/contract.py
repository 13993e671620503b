"""What a motion module is: the one interface between an image backbone and anything that makes its frames move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MotionContext:
    """What a motion module may know besides the features.

    Attributes:
        frame_positions: `[f]`, the absolute index of each frame in the video; float, so that it can be stretched.
        timestep_embedding: `[b, d]`, the backbone's embedding of the noise level, or None where it has none.
        encoder_hidden_states: `[b, n, d]`, the text states, or None.
        strength: how much of the module's contribution is added; 0 leaves the image model's features untouched.
    """

    frame_positions: Tensor
    timestep_embedding: Tensor | None = None
    encoder_hidden_states: Tensor | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class MotionModuleConfig:
    """Base of every kind's settings; saved with the weights, so its fields must be plain values.

    Attributes:
        trained_frames: how many frames the weights have seen; more are allowed, with a warning.
    """

    trained_frames: int = 32

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to a config file."""
        return asdict(self)

    def with_changes(self, **changes: Any) -> MotionModuleConfig:
        """A copy with other values."""
        return replace(self, **changes)


@dataclass(frozen=True)
class MotionSite:
    """A named place in a backbone that may hold a motion module of a given width (channels of the features)."""

    name: str
    width: int


class MotionModule(nn.Module, ABC):
    """A network from the features of all frames to features of the same shape.

    Subclasses implement `motion`, what is added to the features; the sum is done here, once for all kinds.
    A fresh module must be the identity, that is, `motion` must return zeros.
    """

    config_class: ClassVar[type[MotionModuleConfig]] = MotionModuleConfig

    def __init__(self, config: MotionModuleConfig, width: int) -> None:
        """`width` is the number of channels of the site."""
        super().__init__()
        self.config = config
        self.width = width

    @abstractmethod
    def motion(self, features: Tensor, context: MotionContext) -> Tensor:
        """What is to be added to `features [b, f, h, w, c]`: a new tensor of the same shape and dtype.

        `features` must not be changed in place.
        """

    def forward(self, features: Tensor, context: MotionContext) -> Tensor:
        """`features + strength * motion(features)`; strength 0 returns `features` itself."""
        if context.strength == 0.0:
            return features
        motion = self.motion(features, context)
        if torch.is_grad_enabled():
            return torch.add(features, motion, alpha=context.strength)
        if context.strength != 1.0:
            motion.mul_(context.strength)
        return motion.add_(features)


@dataclass(frozen=True)
class ModuleSpec:
    """How to build one module: its kind, the width of its site, and its config as plain values."""

    kind: str
    width: int
    config: dict[str, Any] = field(default_factory=dict)
