"""How an EasyAnimate learns from clips: some of their frames are given, and it denoises the whole video."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.pipelines.family import Networks
from muybridge.types import SettingsDict
from muybridge.vae.magvit.batches import encode_given, encode_videos


def latents(networks: Networks, batch: Mapping[str, Tensor]) -> Tensor:
    """Of `pixels [b, f, 3, h, w]` in [-1, 1]."""
    return encode_videos(networks.vae, batch["pixels"])


def told(networks: Networks, batch: Mapping[str, Tensor]) -> SettingsDict:
    """Of `input_ids` and `attention_mask [b, n]`, `pixels`, and `unknown [b, f]`, true for frames to be made."""
    with torch.no_grad():
        given = encode_given(networks.vae, batch["pixels"], batch["unknown"])
    mask = batch["attention_mask"]
    states = networks.text_encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask, "inpaint_latents": given}


def check(networks: Networks) -> None:
    """Raises ConfigError where the transformer's channels are not those of noise, mask and masked video.

    It may give the variance besides what it predicts.
    """
    config, channels = networks.backbone.transformer_config, networks.vae.config["latent_channels"]
    if config.in_channels != 3 * channels or config.out_channels not in (channels, 2 * channels):
        raise ConfigError(
            f"Training with masks needs a transformer of {3 * channels} input and {channels} output channels for this "
            f"VAE, or {2 * channels} where the variance is learned too; given {config.in_channels} and "
            f"{config.out_channels}."
        )
