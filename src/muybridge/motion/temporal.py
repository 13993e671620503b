"""The kind `temporal`: AnimateDiff's motion module, self-attention along the frames at every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from muybridge.motion.contract import MotionModuleConfig
from muybridge.motion.registry import register_motion_module
from muybridge.motion.transformer import Reach, TransformerMotionConfig, TransformerMotionModule


@dataclass(frozen=True)
class TemporalConfig(TransformerMotionConfig):
    """Settings of the kind `temporal`; the defaults are AnimateDiff's for Stable Diffusion 1.5.

    Attributes:
        attentions_per_block: temporal self-attentions before each feed-forward (2; 1 in SparseCtrl).
    """

    attentions_per_block: int = 2

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """Each position attends to itself in all frames; rows and columns never see each other."""
        return ("temporal",) * self.attentions_per_block


@register_motion_module("temporal")
class TemporalMotionModule(TransformerMotionModule):
    """AnimateDiff's motion module."""

    config_class: ClassVar[type[MotionModuleConfig]] = TemporalConfig
