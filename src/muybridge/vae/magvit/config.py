"""The settings of EasyAnimate's video VAE, checked once and handed down as one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import NamedTuple

from muybridge.errors import ConfigError
from muybridge.types import SettingsView

DEFAULT_CHANNELS = (128, 256, 512, 512)

FIXED_SETTINGS: dict[str, tuple[object, ...]] = {
    "use_gc_blocks": (None, False),
    "mid_block_type": ("MidBlock3D",),
    "mid_block_use_attention": (True,),
    "mid_block_attention_type": ("3d",),
    "mid_block_num_attention_heads": (1,),
    "act_fn": ("silu",),
    "num_attention_heads": (1,),
    "cache_compression_vae": (False,),
    "use_tiling_encoder": (False,),
    "use_tiling_decoder": (False,),
    "upcast_vae": (False,),
    "spatial_group_norm": (False,),
}
"""Settings of the original's class that are not variable here, with the values that are understood."""


class TemporalMode(Enum):
    """How the network treats the ends of a chunk of frames."""

    SLICE = "slice"
    """V3: convolutions see one frame of zeros before and after, and time is doubled evenly."""
    MAGVIT = "magvit"
    """V2: causal; the first frame is repeated before itself, and stays single when time is doubled."""


class Resampling(NamedTuple):
    """By what a level divides (encoder) or multiplies (decoder) frames, and height and width."""

    time: int
    space: int


NO_RESAMPLING = Resampling(1, 1)
_DOWN_TYPES = {
    "DownBlock3D": NO_RESAMPLING,
    "SpatialDownBlock3D": Resampling(1, 2),
    "SpatialTemporalDownBlock3D": Resampling(2, 2),
}
_UP_TYPES = {name.replace("Down", "Up"): resampling for name, resampling in _DOWN_TYPES.items()}


@dataclass(frozen=True)
class MagvitConfig:
    """What distinguishes one such VAE from another.

    Attributes:
        block_out_channels: width of each level, finest first.
        down: resampling after each level of the encoder, finest first; none after the last.
        up: resampling after each level of the decoder, coarsest first; none after the last.
        frames_per_chunk: frames that the encoder takes at once; None takes all.
        latents_per_chunk: latent frames that the decoder takes at once, without their neighbours; None takes all.
    """

    in_channels: int
    out_channels: int
    latent_channels: int
    block_out_channels: tuple[int, ...]
    down: tuple[Resampling, ...]
    up: tuple[Resampling, ...]
    layers_per_block: int
    norm_groups: int
    mode: TemporalMode
    frames_per_chunk: int | None
    latents_per_chunk: int | None

    @property
    def spatial_factor(self) -> int:
        """Pixels of height and width for one of the latents."""
        return prod(level.space for level in self.down)

    @property
    def temporal_factor(self) -> int:
        """Pixel frames for one latent frame, the first of a causal chunk apart."""
        return prod(level.time for level in self.down)

    @classmethod
    def from_keywords(cls, values: SettingsView) -> MagvitConfig:
        """From the keyword arguments of `AutoencoderKLMagvit`, `block_out_channels` among them.

        Raises:
            ConfigError: block types that are not known here or do not fit each other, norm groups that do not divide
                the channels, or chunks whose frames would not all come back.
        """
        channels = tuple(values["block_out_channels"])
        down = _levels(values["down_block_types"], _DOWN_TYPES, len(channels), "down_block_types")
        up = _levels(values["up_block_types"], _UP_TYPES, len(channels), "up_block_types")
        for axis in Resampling._fields:
            factors = [prod(getattr(level, axis) for level in levels) for levels in (down, up)]
            if factors[0] != factors[1]:
                raise ConfigError(
                    f"The encoder divides {axis} by {factors[0]} and the decoder multiplies it by {factors[1]}; "
                    "give down_block_types and up_block_types that agree (the last of each does not resample)."
                )
        groups = values["norm_num_groups"]
        if any(width % groups for width in channels):
            raise ConfigError(f"norm_num_groups {groups} must divide block_out_channels {channels}.")
        mode = TemporalMode.SLICE if values["slice_compression_vae"] else TemporalMode.MAGVIT
        frames, latents = _chunk_sizes(values, mode, prod(level.time for level in down))
        return cls(
            in_channels=values["in_channels"],
            out_channels=values["out_channels"],
            latent_channels=values["latent_channels"],
            block_out_channels=channels,
            down=down,
            up=up,
            layers_per_block=values["layers_per_block"],
            norm_groups=groups,
            mode=mode,
            frames_per_chunk=frames,
            latents_per_chunk=latents,
        )


def refuse_other_settings(given: SettingsView) -> None:
    """Accept settings of the original only with the value that is built here.

    Raises:
        ConfigError: another value, or a setting that the original does not have.
    """
    unknown = sorted(given.keys() - FIXED_SETTINGS.keys())
    if unknown:
        raise ConfigError(f"AutoencoderKLMagvit has no setting {', '.join(unknown)}; remove it.")
    foreign = [
        f"{name}={value!r} (only {FIXED_SETTINGS[name][0]!r})"
        for name, value in given.items()
        if value not in FIXED_SETTINGS[name]
    ]
    if foreign:
        raise ConfigError(f"This VAE has features that are not supported here: {', '.join(foreign)}.")


def level_channels(
    block_out_channels: Sequence[int] | None, ch: int | None, ch_mult: Sequence[int] | None
) -> tuple[int, ...]:
    """The width of each level, from either way of giving it: the published files' or the original class's.

    Raises:
        ConfigError: fewer than two levels, or both ways given and not the same.
    """
    multiplied = tuple((ch or 128) * factor for factor in ch_mult or (1, 2, 4, 4))
    if block_out_channels is None:
        channels = multiplied
    else:
        channels = tuple(block_out_channels)
        if (ch is not None or ch_mult is not None) and channels != multiplied:
            raise ConfigError(
                f"block_out_channels {channels} and ch x ch_mult {multiplied} differ; give one of the two."
            )
    if len(channels) < 2 or min(channels) < 1:
        raise ConfigError(f"At least two levels of at least one channel are needed; given {channels}.")
    return channels


def _levels(names: Sequence[str], known: Mapping[str, Resampling], count: int, setting: str) -> tuple[Resampling, ...]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"{setting} {', '.join(map(str, unknown))} are not supported; supported: {', '.join(known)}.")
    if len(names) != count:
        raise ConfigError(f"{setting} must name {count} levels, one for each width; given {len(names)}.")
    return (*(known[name] for name in names[:-1]), NO_RESAMPLING)


def _chunk_sizes(values: SettingsView, mode: TemporalMode, factor: int) -> tuple[int | None, int | None]:
    """Frames and latents of a chunk; None and None where all are taken at once."""
    if not values["slice_mag_vae"]:
        if mode is TemporalMode.SLICE:
            raise ConfigError(
                "slice_mag_vae=False (no chunks) has no effect with slice_compression_vae=True; remove it."
            )
        return None, None
    frames, latents = values["mini_batch_encoder"], values["mini_batch_decoder"]
    if mode is TemporalMode.SLICE:
        frames = 8 if frames is None else frames
        # An odd number of latents would be read as a lone first frame before the others.
        if frames < 1 or frames % (2 * factor):
            raise ConfigError(
                f"mini_batch_encoder must be a positive multiple of {2 * factor} for this network; given {frames}."
            )
        latents = frames // factor if latents is None else latents
        if latents < 1:
            raise ConfigError(f"mini_batch_decoder must be at least 1; given {latents}.")
        return frames, latents
    frames = 9 if frames is None else frames
    expected = (frames - 1) // factor + 1
    if frames < 1 or (frames - 1) % factor or latents not in (None, expected):
        raise ConfigError(
            f"A causal chunk of n latents is {factor} (n - 1) + 1 frames; given mini_batch_encoder {frames} "
            f"and mini_batch_decoder {latents}."
        )
    return frames, expected
