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
    from muybridge.conditioning.kinds.control import Control
    from muybridge.conditioning.kinds.image_prompt import ImagePrompt
    from muybridge.conditioning.kinds.keyframes import Keyframes
    from muybridge.conditioning.kinds.known_latents import KnownLatents
    from muybridge.conditioning.kinds.mask import Mask
    from muybridge.conditioning.kinds.sketches import Sketches
    from muybridge.conditioning.kinds.source import Source
    from muybridge.longvideo import PipelineSegments, continue_video
    from muybridge.motion import MotionAdapter, MotionModule, MotionModuleConfig, register_motion_module
    from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline, load_pipeline
    from muybridge.pipelines.integration import integrate_motion
    from muybridge.pipelines.planning import plan_video
    from muybridge.request import Condition, FreeInit, ModelChoice, Request, WindowSettings, register_condition
    from muybridge.runtime import optimize
    from muybridge.video import Video, read_video

_HOMES = {
    "AnimateDiffPipeline": "muybridge.pipelines",
    "Condition": "muybridge.request",
    "Control": "muybridge.conditioning.kinds.control",
    "EasyAnimatePipeline": "muybridge.pipelines",
    "FreeInit": "muybridge.request",
    "ImagePrompt": "muybridge.conditioning.kinds.image_prompt",
    "Keyframes": "muybridge.conditioning.kinds.keyframes",
    "KnownLatents": "muybridge.conditioning.kinds.known_latents",
    "Mask": "muybridge.conditioning.kinds.mask",
    "ModelChoice": "muybridge.request",
    "MotionAdapter": "muybridge.motion",
    "MotionModule": "muybridge.motion",
    "MotionModuleConfig": "muybridge.motion",
    "PipelineSegments": "muybridge.longvideo",
    "Request": "muybridge.request",
    "Sketches": "muybridge.conditioning.kinds.sketches",
    "Source": "muybridge.conditioning.kinds.source",
    "SparseControlModel": "muybridge.backbones.unet.sparse_control",
    "Transformer3DModel": "muybridge.backbones.dit",
    "UNet3DConditionModel": "muybridge.backbones.unet",
    "Video": "muybridge.video",
    "WindowSettings": "muybridge.request",
    "continue_video": "muybridge.longvideo",
    "integrate_motion": "muybridge.pipelines.integration",
    "load_pipeline": "muybridge.pipelines",
    "optimize": "muybridge.runtime",
    "plan_video": "muybridge.pipelines.planning",
    "read_video": "muybridge.video",
    "register_condition": "muybridge.request",
    "register_motion_module": "muybridge.motion",
}

__all__ = [
    "AnimateDiffPipeline",
    "Condition",
    "Control",
    "EasyAnimatePipeline",
    "FreeInit",
    "ImagePrompt",
    "Keyframes",
    "KnownLatents",
    "Mask",
    "ModelChoice",
    "MotionAdapter",
    "MotionModule",
    "MotionModuleConfig",
    "PipelineSegments",
    "Request",
    "Sketches",
    "Source",
    "SparseControlModel",
    "Transformer3DModel",
    "UNet3DConditionModel",
    "Video",
    "WindowSettings",
    "__version__",
    "continue_video",
    "integrate_motion",
    "load_pipeline",
    "optimize",
    "plan_video",
    "read_video",
    "register_condition",
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
