"""The settings of EasyAnimate's transformer, checked once and handed down as one object."""

from __future__ import annotations

from dataclasses import dataclass, fields

from muybridge.errors import ConfigError
from muybridge.types import SettingsView

_POSITIVE = (
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "num_layers",
    "sample_size",
    "patch_size",
    "caption_channels",
)


@dataclass(frozen=True)
class TransformerConfig:
    """What distinguishes one PixArt-type video transformer from another; names are the original's where it has one.

    Attributes:
        num_attention_heads: of every attention outside the motion modules.
        attention_head_dim: channels of a head; heads times this is the width of the tokens.
        in_channels: of the input; beyond `latent_channels` they are mask and masked video.
        latent_channels: of the noisy video alone.
        out_channels: twice `latent_channels` where the variance is learned too.
        num_layers: transformer blocks.
        sample_size: side of the latents of the image model; position codes span as many patches whatever the size.
        patch_size: latents a token, in height and in width.
        caption_channels: width of the text states.
        clip_channels: width of the image embedding, or None where the model takes none.
        clip_tokens: tokens that one image embedding becomes.
        norm_eps: of all norms outside the motion modules.
        enable_uvit: whether the first blocks are joined to the last by long skips.
    """

    num_attention_heads: int
    attention_head_dim: int
    in_channels: int
    latent_channels: int
    out_channels: int
    num_layers: int
    sample_size: int
    patch_size: int
    caption_channels: int
    clip_channels: int | None
    clip_tokens: int
    norm_eps: float
    enable_uvit: bool

    def __post_init__(self) -> None:
        wrong = [f"{name}={getattr(self, name)!r}" for name in _POSITIVE if getattr(self, name) < 1]
        if wrong:
            raise ConfigError(f"A transformer needs settings of at least 1; given {', '.join(wrong)}.")
        if self.width % 4:
            raise ConfigError(
                f"num_attention_heads times attention_head_dim must be a multiple of 4, for sine and cosine of row and "
                f"column; given {self.num_attention_heads} x {self.attention_head_dim}."
            )
        if self.has_size_condition and self.width % 3:
            raise ConfigError(f"A model of sample_size 128 needs a width that 3 divides; given {self.width}.")

    @classmethod
    def from_keywords(cls, values: SettingsView) -> TransformerConfig:
        """From the keyword arguments of `Transformer3DModel`.

        Raises:
            ConfigError: numbers out of range, or a width that cannot be divided as needed.
        """
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def width(self) -> int:
        """Channels of the tokens."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def num_skips(self) -> int:
        """Blocks at either end that long skips join: 13 of 28, so that the two in the middle take no part."""
        return max(0, self.num_layers // 2 - 1) if self.enable_uvit else 0

    @property
    def has_size_condition(self) -> bool:
        """Whether the model is told height, width and aspect ratio; PixArt's are from this size on."""
        return self.sample_size == 128

    @property
    def interpolation_scale(self) -> int:
        """How much closer positions lie than those of the smallest image model."""
        return max(self.sample_size // 64, 1)
