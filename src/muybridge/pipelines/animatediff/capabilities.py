"""What AnimateDiff can be asked for, and what it makes where nobody says."""

from __future__ import annotations

from typing import Any

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.request import Capabilities
from muybridge.request.following import Usual
from muybridge.types import ScaleFactors

USUAL_FRAMES, _FPS = 16, 8.0
_TAKES = frozenset({"image prompt", "prompt travel", "residuals", "windows"})
_BESIDE = frozenset({"controls", "keyframes", "sketches"})
_ON_SDXL = (
    "{{name}}: {what} supported with Stable Diffusion 1.5 only, and this model is Stable Diffusion XL. Leave that out, "
    "or use a model of Stable Diffusion 1.5."
)


def capabilities(second_text_encoder: Any | None) -> Capabilities:
    """Of Stable Diffusion 1.5, or with a second text encoder of Stable Diffusion XL."""
    is_sdxl = second_text_encoder is not None
    refusals = {
        name: _ON_SDXL.format(what="ControlNets are" if name == "controls" else "SparseCtrl is") for name in _BESIDE
    }
    return Capabilities(
        model="An AnimateDiff model",
        instead="an EasyAnimate model",
        takes=_TAKES | (frozenset({"picture sizes"}) if is_sdxl else _BESIDE),
        refusals=refusals if is_sdxl else {},
        source_strength=0.8,
        pooled_width=second_text_encoder.config.projection_dim if second_text_encoder is not None else None,
    )


def usual_of(unet: UNet3DConditionModel, factors: ScaleFactors, windows: object | None) -> Usual:
    """What is made where neither a call nor a source video says anything; with `windows` of any length."""
    sample_size = unet.config["sample_size"]
    side = sample_size * factors.spatial if isinstance(sample_size, int) else None
    size = None if side is None else (side, side)
    return Usual(USUAL_FRAMES, size, _FPS, factors.spatial, lambda most: most, windows is None, _longer_by_windows)


def _longer_by_windows(num_frames: int) -> str:
    return f"For all, give num_frames={num_frames} with windows (--frames {num_frames} --window 16)."
