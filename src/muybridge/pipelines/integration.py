"""Motion modules for any model: of an image model a video model is made first, which needs to know the backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import PixArtTransformer2DModel, UNet2DConditionModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.errors import ConfigError
from muybridge.motion import MotionIntegration, MotionModule
from muybridge.motion.integration import IntegrationMode, KindChoice, Settings
from muybridge.motion.integration import integrate_motion as integrate_into_host


def integrate_motion(
    model: Any,
    motion: str | type[MotionModule] | MotionModule | Mapping[str, KindChoice],
    sites: str | Sequence[str] | None = None,
    mode: IntegrationMode = "add",
    config: Settings = None,
) -> MotionIntegration:
    """Give motion modules to a pipeline, a backbone or an image model; fresh ones change nothing until trained.

    Args:
        model: a pipeline or backbone of this package, which is changed in place; or an image model, diffusers'
            `UNet2DConditionModel` or `PixArtTransformer2DModel`, of which a video model is made (`model` of the
            result) while it stays as it is. A U-Net and its video model share their weights; of a transformer the
            weights are copied.
        motion: a kind by name or class; a module, for a single site; or kinds by patterns of sites, where the first
            that fits decides: `{"mid_block.*": "low_rank", "*": ("temporal", {"num_heads": 4})}`.
        sites: patterns of the sites meant, such as `up_blocks.*`; all if not given.
        mode: what to do where there is a module already. "add" lets both see the same features and adds what both
            make of them, "after" lets the new one see what the old one has made, "replace" takes the old one out.
        config: settings of the kind, where `motion` is one.

    Returns:
        What was added. Its `remove()` undoes it exactly and returns the model that was given.

    Raises:
        ConfigError: a model without motion sites, an unknown kind or mode, settings that do not fit, a pattern
            without effect, or settings given twice. The model is then as before.
    """
    _refuse_image_pipeline(model)
    return integrate_into_host(video_model_of(model), motion, sites, mode, config, given=model)


def video_model_of(model: Any) -> Any:
    """The video model of an image model, frame by frame equal to it; anything else is returned as it is.

    Raises:
        ConfigError: the image model has a feature that the video model does not have.
    """
    if isinstance(model, UNet2DConditionModel):
        return UNet3DConditionModel.from_unet2d(model)
    if isinstance(model, PixArtTransformer2DModel):
        channels = model.config["in_channels"]
        return Transformer3DModel.from_transformer2d(model, channels, clip_channels=None, enable_uvit=False)
    return model


def _refuse_image_pipeline(model: Any) -> None:
    for name in ("unet", "transformer"):
        network = getattr(model, name, None)
        if isinstance(network, UNet2DConditionModel | PixArtTransformer2DModel):
            raise ConfigError(
                f"A {type(model).__name__} makes single pictures with a {type(network).__name__}, and cannot call a "
                f"video model. Give its .{name} alone, or make a video pipeline of its parts first, such as "
                "AnimateDiffPipeline."
            )
