"""How an AnimateDiff learns from clips: frame by frame through VAE and text encoder, all frames through the U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from muybridge.backbones.unet.config import UNetConfig
from muybridge.errors import ConfigError
from muybridge.pipelines.family import Networks
from muybridge.sampling import make_plain_scheduler
from muybridge.sampling.schedulers import ANIMATEDIFF_BETAS
from muybridge.types import SettingsDict
from muybridge.vae import encode_images


def latents(networks: Networks, batch: Mapping[str, Tensor]) -> Tensor:
    """Of `pixels [b, f, 3, h, w]` in [-1, 1]; or `latents`, where they have been made before."""
    if "latents" in batch:
        return batch["latents"]
    pixels = batch["pixels"]
    return encode_images(networks.vae, pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]).transpose(1, 2)


def told(networks: Networks, batch: Mapping[str, Tensor]) -> SettingsDict:
    """Of `input_ids [b, n]` and `frame_positions [f]`."""
    return {**text(networks, batch), "frame_positions": batch["frame_positions"]}


def text(networks: Networks, batch: Mapping[str, Tensor]) -> SettingsDict:
    """Of `input_ids [b, n]`; or `text_states`, where they have been made before."""
    if "text_states" in batch:
        return {"encoder_hidden_states": batch["text_states"]}
    return {"encoder_hidden_states": networks.text_encoder(input_ids=batch["input_ids"]).last_hidden_state}


def prepare_image_model(pipeline: Any) -> None:
    """Give it the noise levels that motion modules are trained with; what it predicts stays."""
    prediction = pipeline.scheduler.config["prediction_type"]
    pipeline.scheduler = make_plain_scheduler("ddim", {**ANIMATEDIFF_BETAS, "prediction_type": prediction})


def check(networks: Networks) -> None:
    """Raises ConfigError for Stable Diffusion XL."""
    if UNetConfig.from_keywords(networks.backbone.config).addition is not None:
        raise ConfigError("This is Stable Diffusion XL, which is not trained here; give base a 1.5 model.")
