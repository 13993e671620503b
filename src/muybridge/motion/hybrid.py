"""The kind `hybrid`: EasyAnimate's motion module, attention along the frames and over the whole video in turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from muybridge.errors import ConfigError
from muybridge.motion.contract import MotionModuleConfig
from muybridge.motion.registry import register_motion_module
from muybridge.motion.transformer import REACHES, Reach, TransformerMotionConfig, TransformerMotionModule


@dataclass(frozen=True)
class HybridConfig(TransformerMotionConfig):
    """Settings of the kind `hybrid`; the defaults are those of EasyAnimate V3's odd layers.

    Attributes:
        attentions: what each attention of a block looks at, "temporal" or "global", in order. A global attention
            costs the square of all tokens of the video.

    Raises:
        ConfigError: no attentions, or another word among them.
    """

    trained_frames: int = 36
    num_heads: int = 16
    attentions: tuple[Reach, ...] = ("temporal", "global")

    def __post_init__(self) -> None:
        object.__setattr__(self, "attentions", tuple(self.attentions))  # a config file has a list
        if not self.attentions or any(reach not in REACHES for reach in self.attentions):
            raise ConfigError(f"attentions must be some of {', '.join(REACHES)}; given {list(self.attentions)}.")

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """As configured."""
        return self.attentions


_V3_ODD = HybridConfig()
_V3_EVEN = replace(_V3_ODD, attentions=("temporal", "temporal"))
HYBRID_PRESETS: dict[str, HybridConfig] = {
    "easyanimate_v3_even": _V3_EVEN,
    "easyanimate_v3_odd": _V3_ODD,
    "easyanimate_v2": replace(_V3_EVEN, num_heads=8, trained_frames=48),
}
"""The published models': V3 alternates between even and odd layers, V2 has one for all.

They were trained on up to 144 pixel frames, which are 36 latent frames in V3 and 48 in V2.
"""


def hybrid_preset(name: str) -> HybridConfig:
    """Look a preset up.

    Raises:
        ConfigError: unknown name; the message lists the known ones.
    """
    if name not in HYBRID_PRESETS:
        raise ConfigError(f"Unknown preset of the motion kind 'hybrid': {name!r}. Known: {', '.join(HYBRID_PRESETS)}.")
    return HYBRID_PRESETS[name]


@register_motion_module("hybrid")
class HybridMotionModule(TransformerMotionModule):
    """EasyAnimate's motion module. Source: EasyAnimate V3, `easyanimate/models/motion_module.py`."""

    config_class: ClassVar[type[MotionModuleConfig]] = HybridConfig
