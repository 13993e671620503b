"""How an EasyAnimate learns from clips: some of their frames are given, and it denoises the whole video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from muybridge.conditioning.clip_picture import embed_picture
from muybridge.errors import ConfigError
from muybridge.pipelines.family import Networks
from muybridge.types import SettingsDict
from muybridge.vae.magvit.batches import encode_given, encode_masked, encode_videos


def latents(networks: Networks, batch: Mapping[str, Tensor]) -> Tensor:
    """Of `pixels [b, f, 3, h, w]` in [-1, 1]; or `latents`, where they have been made before."""
    if "latents" in batch:
        return batch["latents"]
    return encode_videos(networks.vae, batch["pixels"])


def told(networks: Networks, batch: Mapping[str, Tensor]) -> SettingsDict:
    """Of captions, and of what is given of the clips; see `text` and `conditions`."""
    with torch.no_grad():
        given = conditions(networks, batch)
    return {**text(networks, batch), **given}


def text(networks: Networks, batch: Mapping[str, Tensor]) -> SettingsDict:
    """Of `input_ids` and `attention_mask [b, n]`; or `text_states` and the latter, where they have been made before."""
    mask = batch["attention_mask"]
    if "text_states" in batch:
        return {"encoder_hidden_states": batch["text_states"], "encoder_attention_mask": mask}
    states = networks.text_encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def conditions(networks: Networks, batch: Mapping[str, Tensor]) -> SettingsDict:
    """Of `pixels`, and `unknown [b, f]` or `[b, f, h, w]`, true for what is to be made.

    Where the model is told of a picture, also of `picture [b]`, the frame that it is, and `picture_counts [b]`. Samples
    that `nothing_given [b]` is true for are told nothing of mask and masked video.
    """
    unknown = batch["unknown"]
    encode = encode_given if unknown.ndim == 2 else encode_masked
    given = encode(networks.vae, batch["pixels"], unknown)
    if "nothing_given" in batch:
        given = given * ~batch["nothing_given"][:, None, None, None, None]
    return {"inpaint_latents": given, **_picture(networks, batch)}


def _picture(networks: Networks, batch: Mapping[str, Tensor]) -> SettingsDict:
    encoder: Any = getattr(networks, "image_encoder", None)
    processor: Any = getattr(networks, "image_processor", None)
    config = networks.backbone.transformer_config
    if encoder is None or processor is None or config.clip_channels is None or "picture" not in batch:
        return {}
    frames = batch["pixels"][torch.arange(len(batch["pixels"])), batch["picture"]]
    pictures = ((frames + 1) * 127.5).round().clamp(0, 255).byte().movedim(1, -1).cpu().numpy()
    states = torch.cat([embed_picture(processor, encoder, Image.fromarray(picture)) for picture in pictures])
    counts = batch["picture_counts"].to(states)
    return {
        "clip_encoder_hidden_states": states,
        "clip_attention_mask": counts[:, None].expand(-1, config.clip_tokens),
    }


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
