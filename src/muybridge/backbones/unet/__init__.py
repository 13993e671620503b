"""Stable Diffusion's U-Net with motion sites."""

from muybridge.backbones.unet.from_diffusers import from_unet_motion_model
from muybridge.backbones.unet.model import UNet3DConditionModel, UNet3DConditionOutput

__all__ = ["UNet3DConditionModel", "UNet3DConditionOutput", "from_unet_motion_model"]
