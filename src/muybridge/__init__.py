"""Image diffusion models that move: motion modules for U-Nets and transformers.

Importing this package is cheap; a name brings torch in only when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muybridge.backbones.dit import Transformer3DModel
    from muybridge.backbones.unet import UNet3DConditionModel
    from muybridge.motion import MotionAdapter
    from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline, load_pipeline
    from muybridge.video import Video

__version__ = "0.1.0"

_HOMES = {
    "AnimateDiffPipeline": "muybridge.pipelines",
    "EasyAnimatePipeline": "muybridge.pipelines",
    "MotionAdapter": "muybridge.motion",
    "Transformer3DModel": "muybridge.backbones.dit",
    "UNet3DConditionModel": "muybridge.backbones.unet",
    "Video": "muybridge.video",
    "load_pipeline": "muybridge.pipelines",
}

__all__ = [
    "AnimateDiffPipeline",
    "EasyAnimatePipeline",
    "MotionAdapter",
    "Transformer3DModel",
    "UNet3DConditionModel",
    "Video",
    "__version__",
    "load_pipeline",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'muybridge' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
