"""How a model of the family learns from clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muybridge.pipelines.family import Networks
from muybridge.types import VideoShape
from muybridge.vae import encode_images
from torch import Tensor

from pixart_frames.pipeline import size_conditions


def latents(networks: Networks, batch: Mapping[str, Tensor]) -> Tensor:
    """Of `pixels [b, f, 3, h, w]` in [-1, 1], frame by frame."""
    pixels = batch["pixels"]
    return encode_images(networks.vae, pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]).transpose(1, 2)


def told(networks: Networks, batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of `input_ids [b, n]` and `frame_positions [f]`; without an `attention_mask [b, n]` all tokens count."""
    mask = batch.get("attention_mask")
    states = networks.text_encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    _, num_frames, _, height, width = batch["pixels"].shape
    sizes = size_conditions(networks.backbone, VideoShape(num_frames, height, width), states)
    return {
        "encoder_hidden_states": states,
        "encoder_attention_mask": mask,
        "frame_positions": batch["frame_positions"],
        "added_cond_kwargs": sizes,
    }
