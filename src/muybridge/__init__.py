"""Image diffusion models that move: motion modules for U-Nets and transformers.

Importing this package is cheap; a name brings torch in only when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from muybridge.version import __version__

if TYPE_CHECKING:
    from muybridge.backbones.dit import Transformer3DModel
    from muybridge.backbones.unet import UNet3DConditionModel
    from muybridge.backbones.unet.sparse_control import SparseControlModel
    from muybridge.motion import MotionAdapter, MotionModule, MotionModuleConfig, register_motion_module
    from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline, load_pipeline
    from muybridge.pipelines.controls import DenseControl
    from muybridge.pipelines.integration import integrate_motion
    from muybridge.pipelines.planning import plan_video
    from muybridge.runtime import optimize
    from muybridge.sampling import FreeInit, WindowSettings
    from muybridge.video import Video

_HOMES = {
    "AnimateDiffPipeline": "muybridge.pipelines",
    "DenseControl": "muybridge.pipelines.controls",
    "EasyAnimatePipeline": "muybridge.pipelines",
    "FreeInit": "muybridge.sampling",
    "MotionAdapter": "muybridge.motion",
    "MotionModule": "muybridge.motion",
    "MotionModuleConfig": "muybridge.motion",
    "SparseControlModel": "muybridge.backbones.unet.sparse_control",
    "Transformer3DModel": "muybridge.backbones.dit",
    "UNet3DConditionModel": "muybridge.backbones.unet",
    "Video": "muybridge.video",
    "WindowSettings": "muybridge.sampling",
    "integrate_motion": "muybridge.pipelines.integration",
    "load_pipeline": "muybridge.pipelines",
    "optimize": "muybridge.runtime",
    "plan_video": "muybridge.pipelines.planning",
    "register_motion_module": "muybridge.motion",
}

__all__ = [
    "AnimateDiffPipeline",
    "DenseControl",
    "EasyAnimatePipeline",
    "FreeInit",
    "MotionAdapter",
    "MotionModule",
    "MotionModuleConfig",
    "SparseControlModel",
    "Transformer3DModel",
    "UNet3DConditionModel",
    "Video",
    "WindowSettings",
    "__version__",
    "integrate_motion",
    "load_pipeline",
    "optimize",
    "plan_video",
    "register_motion_module",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'muybridge' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
