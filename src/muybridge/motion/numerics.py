"""Over which pixels the group norms run: the versions of AnimateDiff differ, and diffusers differs from all of them."""

from __future__ import annotations

from dataclasses import dataclass

from muybridge.errors import ConfigError
from muybridge.motion.normalisation import NormScope


@dataclass(frozen=True)
class NumericPreset:
    """Norm scopes under which weights give the numbers of one implementation.

    Attributes:
        name: of the preset.
        backbone_norm_scope: of the residual blocks and the last norm of the U-Net.
        motion_norm_scope: of the first norm of each motion module.
    """

    name: str
    backbone_norm_scope: NormScope
    motion_norm_scope: NormScope


NUMERIC_PRESETS: dict[str, NumericPreset] = {
    preset.name: preset
    for preset in (
        NumericPreset("official-v1", backbone_norm_scope="video", motion_norm_scope="frame"),
        NumericPreset("official-v2", backbone_norm_scope="frame", motion_norm_scope="frame"),
        NumericPreset("official-v3", backbone_norm_scope="frame", motion_norm_scope="frame"),
        NumericPreset("easyanimate", backbone_norm_scope="frame", motion_norm_scope="frame"),
        NumericPreset("diffusers", backbone_norm_scope="frame", motion_norm_scope="video"),
    )
}


def numeric_preset(name: str) -> NumericPreset:
    """Look a preset up.

    Raises:
        ConfigError: unknown name; the message lists the known ones.
    """
    if name not in NUMERIC_PRESETS:
        raise ConfigError(f"Unknown numeric preset {name!r}. Known: {', '.join(NUMERIC_PRESETS)}.")
    return NUMERIC_PRESETS[name]
