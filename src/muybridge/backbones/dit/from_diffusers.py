"""From diffusers' PixArt transformer to the video transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.types import SettingsDict

if TYPE_CHECKING:
    from diffusers import PixArtTransformer2DModel

_FIXED: dict[str, tuple[object, ...]] = {
    "attention_bias": (True,),
    "activation_fn": ("gelu-approximate",),
    "num_embeds_ada_norm": (1000,),
    "upcast_attention": (False,),
    "norm_type": ("ada_norm_single",),
    "norm_elementwise_affine": (False,),
    "attention_type": ("default", None),
    "interpolation_scale": (None,),
    "use_additional_conditions": (None,),
    "dropout": (0, 0.0),
}
_SHARED = (
    "num_attention_heads",
    "attention_head_dim",
    "num_layers",
    "sample_size",
    "patch_size",
    "caption_channels",
    "norm_eps",
)


def pixart_keywords(transformer: PixArtTransformer2DModel) -> SettingsDict:
    """Keyword arguments that the video model shares with the image model.

    Raises:
        ConfigError: the image model uses a feature that this network does not have.
    """
    config = dict(transformer.config)
    foreign = [f"{name}={config[name]!r}" for name, known in _FIXED.items() if config.get(name, known[0]) not in known]
    if config["caption_channels"] is None:
        foreign.append("caption_channels=None")
    if foreign:
        raise ConfigError(f"This PixArt model has features that are not supported here: {', '.join(foreign)}.")
    channels = config["in_channels"]
    shared = {name: config[name] for name in _SHARED}
    return {**shared, "latent_channels": channels, "out_channels": config["out_channels"] or channels}


def widened_weights(transformer: PixArtTransformer2DModel, model: nn.Module) -> dict[str, Tensor]:
    """The image model's weights for `model`; what it has no weights for keeps its own, new input channels are zero."""
    state = model.state_dict()
    image = transformer.state_dict()
    if left_over := sorted(image.keys() - state.keys()):
        raise ConfigError(f"This PixArt model has weights without a place here: {', '.join(left_over[:3])}.")
    for name, value in image.items():
        if name == "pos_embed.proj.weight":
            wide = torch.zeros_like(state[name], dtype=value.dtype)
            wide[:, : value.shape[1]] = value
            state[name] = wide
        else:
            state[name] = value
    return state
