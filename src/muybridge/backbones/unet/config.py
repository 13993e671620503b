"""The settings of a Stable Diffusion U-Net, checked once and handed down as one object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from muybridge.errors import ConfigError
from muybridge.types import SettingsView

_SINGLE_NUMBERS = ("layers_per_block", "cross_attention_dim", "norm_num_groups")
_DOWN_TYPES = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
_UP_TYPES = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}

FIXED_SETTINGS: dict[str, tuple[object, ...]] = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "dropout": (0, 0.0),
    "act_fn": ("silu",),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "addition_embed_type": (None, "text_time"),
    "num_class_embeds": (None,),
    "upcast_attention": (False, None),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1, 1.0),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
"""Settings of diffusers' `UNet2DConditionModel` that are not variable here, with the values that are understood."""


@dataclass(frozen=True)
class AdditionConfig:
    """What SDXL adds to the timestep embedding: the whole text as one vector, and six numbers about sizes.

    Attributes:
        time_width: channels for each of the numbers.
        input_width: channels of the vector and all numbers together.
    """

    time_width: int
    input_width: int


@dataclass(frozen=True)
class UNetConfig:
    """What distinguishes one SD-type U-Net from another.

    Attributes:
        block_out_channels: width of each level, finest first.
        cross_attention_levels: which levels have spatial transformers; the middle always has.
        transformer_depths: transformer blocks of each level's spatial transformers.
        num_heads: attention heads of each level.
        addition: of SDXL, else None.
    """

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    cross_attention_levels: tuple[bool, ...]
    transformer_depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    layers_per_block: int
    cross_attention_dim: int
    norm_groups: int
    norm_eps: float
    linear_projection: bool
    flip_sin_to_cos: bool
    freq_shift: int
    addition: AdditionConfig | None = None

    @property
    def time_embedding_dim(self) -> int:
        """Width of the timestep embedding inside the network."""
        return 4 * self.block_out_channels[0]

    @classmethod
    def from_keywords(cls, values: SettingsView) -> UNetConfig:
        """From the keyword arguments of `UNet3DConditionModel`, which are diffusers' names.

        Raises:
            ConfigError: block types that are not known here or do not mirror each other, numbers given per level
                where one is needed, or heads or norm groups that do not divide the channels.
        """
        uneven = [f"{name}={values[name]!r}" for name in _SINGLE_NUMBERS if not isinstance(values[name], int)]
        if uneven:
            raise ConfigError(f"Only one number for all levels is supported here, not {', '.join(uneven)}.")
        channels = tuple(values["block_out_channels"])
        levels = len(channels)
        down, up = tuple(values["down_block_types"]), tuple(values["up_block_types"])
        unknown = [name for name in down if name not in _DOWN_TYPES] + [name for name in up if name not in _UP_TYPES]
        if unknown:
            known = ", ".join([*_DOWN_TYPES, *_UP_TYPES])
            raise ConfigError(f"U-Net block types {', '.join(unknown)} are not supported; supported: {known}.")
        attention = tuple(_DOWN_TYPES[name] for name in down)
        if len(down) != levels or attention != tuple(reversed([_UP_TYPES[name] for name in up])):
            raise ConfigError(
                f"down_block_types {down} and up_block_types {up} must mirror each other over {levels} levels."
            )
        for name in ("attention_head_dim", "norm_num_groups"):
            divisors = _per_level(values[name], levels)
            if any(width % divisor for width, divisor in zip(channels, divisors, strict=True)):
                raise ConfigError(f"{name} {values[name]} must divide block_out_channels {channels}.")
        return cls(
            in_channels=values["in_channels"],
            out_channels=values["out_channels"],
            block_out_channels=channels,
            cross_attention_levels=attention,
            transformer_depths=_per_level(values["transformer_layers_per_block"], levels),
            num_heads=_per_level(values["attention_head_dim"], levels),
            layers_per_block=values["layers_per_block"],
            cross_attention_dim=values["cross_attention_dim"],
            norm_groups=values["norm_num_groups"],
            norm_eps=values["norm_eps"],
            linear_projection=values["use_linear_projection"],
            flip_sin_to_cos=values["flip_sin_to_cos"],
            freq_shift=values["freq_shift"],
            addition=_addition(values),
        )


def _addition(values: SettingsView) -> AdditionConfig | None:
    kind = values.get("addition_embed_type")
    if kind is None:
        return None
    time_width, input_width = values.get("addition_time_embed_dim"), values.get("projection_class_embeddings_input_dim")
    if kind != "text_time" or not isinstance(time_width, int) or not isinstance(input_width, int):
        raise ConfigError(
            f"addition_embed_type must be None or 'text_time' with both of its widths; given {kind!r} with "
            f"addition_time_embed_dim={time_width!r} and projection_class_embeddings_input_dim={input_width!r}."
        )
    return AdditionConfig(time_width, input_width)


def _per_level(value: int | Iterable[int], levels: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * levels
    result = tuple(value)
    if len(result) != levels or not all(isinstance(item, int) for item in result):
        raise ConfigError(f"Expected one number for all {levels} levels or one for each, not {value}.")
    return result
