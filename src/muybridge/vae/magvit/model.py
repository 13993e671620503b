"""EasyAnimate's video VAE: the slice VAE of V3 and the MagViT VAE of V2, one network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from muybridge.errors import ConfigError, ShapeError
from muybridge.motion.linear import PointwiseConvolution3d
from muybridge.vae.magvit.chunks import (
    DecoderChunk,
    count_frames,
    count_latents,
    decoder_chunks,
    encoder_chunks,
    nearest_allowed,
    require_frames_that_return,
)
from muybridge.vae.magvit.config import MagvitConfig, TemporalMode, level_channels, refuse_other_settings
from muybridge.vae.magvit.folder import load_folder_of
from muybridge.vae.magvit.networks import Decoder, Encoder
from muybridge.vae.magvit.tiling import TileGrid, Tiling, parse_tiling

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution

_EXACT_TILE_SIZE = 128
_EXACT_TILE_SIZE, _EXACT_TILE_SIZE_IN_HALF = 128, 80
"""In half precision a tile is also there in float32, while it is normalised."""
_LARGE = 512 * 512
"""Pixels of a picture above which `Tiling.AUTO` makes tiles."""


class AutoencoderKLMagvit(ModelMixin, ConfigMixin):
    """Videos to latents and back, a chunk of frames at a time.

    Pixels are `[b, 3, f, h, w]` in [-1, 1]. No scaling factor is applied; `config.scaling_factor` says which one the
    transformer wants. Weight names are the original's. Source: aigc-apps/EasyAnimate, `AutoencoderKLMagvit`.

    Attributes:
        shape: the settings of the network, derived from `config`.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResidualBlock", "SpaceTimeAttention"]
    _repeated_blocks = ["ResidualBlock"]
    _skip_layerwise_casting_patterns = ["norm"]
    # They are called one by one, not by `forward`.
    _group_offload_block_modules = ["quant_conv", "post_quant_conv", "encoder", "decoder"]
    ignore_for_config = ["fixed_settings"]

    @register_to_config
    def __init__(  # noqa: PLR0913, PLR0917  # ConfigMixin saves a model's keyword arguments
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = ("SpatialDownBlock3D",) + ("SpatialTemporalDownBlock3D",) * 3,
        up_block_types: Sequence[str] = ("SpatialUpBlock3D",) + ("SpatialTemporalUpBlock3D",) * 3,
        block_out_channels: Sequence[int] | None = None,
        ch: int | None = None,
        ch_mult: Sequence[int] | None = None,
        layers_per_block: int = 2,
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        scaling_factor: float = 0.18215,
        slice_mag_vae: bool = True,
        slice_compression_vae: bool = False,
        mini_batch_encoder: int | None = None,
        mini_batch_decoder: int | None = None,
        use_tiling: bool = False,
        tile_sample_min_size: int = 384,
        tile_overlap_factor: float = 0.25,
        **fixed_settings: object,
    ) -> None:
        """The defaults are V2's at full size; `slice_compression_vae=True` is V3.

        Args:
            in_channels: of pixels.
            out_channels: of pixels.
            down_block_types: one for each level, finest first: `SpatialDownBlock3D` halves height and width,
                `SpatialTemporalDownBlock3D` frames too, `DownBlock3D` nothing. The last level never does.
            up_block_types: one for each level, coarsest first, likewise.
            block_out_channels: width of each level, finest first; by default 128, 256, 512, 512.
            ch: with `ch_mult`, another way to say so.
            ch_mult: what `ch` is multiplied by at each level.
            layers_per_block: residual blocks of a level; the decoder has one more.
            latent_channels: of latents.
            norm_num_groups: of all norms.
            scaling_factor: kept for those who ask; not applied.
            slice_mag_vae: False (V2 only) takes all frames at once.
            slice_compression_vae: True pads time evenly (V3), False is causal (V2).
            mini_batch_encoder: frames of a chunk; by default 8 (V3) or 9 (V2).
            mini_batch_decoder: latents of a chunk; by default what `mini_batch_encoder` frames give.
            use_tiling: start with `Tiling.REFERENCE` instead of `Tiling.AUTO`.
            tile_sample_min_size: edge of a reference tile in pixels; only larger pictures are tiled.
            tile_overlap_factor: the part of a tile that overlaps the next.
            **fixed_settings: settings of the original that have one value here (`FIXED_SETTINGS`).

        Raises:
            ConfigError: settings that are not supported or do not fit each other.
        """
        super().__init__()
        refuse_other_settings(fixed_settings)
        self.register_to_config(block_out_channels=level_channels(block_out_channels, ch, ch_mult))
        self.shape = MagvitConfig.from_keywords(self.config)
        self.encoder = Encoder(self.shape)
        self.decoder = Decoder(self.shape)
        self.quant_conv = PointwiseConvolution3d(2 * latent_channels, 2 * latent_channels)
        self.post_quant_conv = PointwiseConvolution3d(latent_channels, latent_channels)
        self._grid = TileGrid.from_settings(tile_sample_min_size, tile_overlap_factor, self.spatial_factor)
        self.reset_tiling()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: Any
    ) -> AutoencoderKLMagvit:
        """Load a folder with a `config.json` and one weight file, as published or as `save_pretrained` writes it.

        Training leftovers (`loss.*`) are dropped. Of diffusers' options, `subfolder`, `torch_dtype` and `variant` act;
        those about the way to read a file (`low_cpu_mem_usage` and so on) are accepted.

        Raises:
            CheckpointError: no such folder, another model, weights missing, left over, of other shapes, or not finite.
            ConfigError: an option that is not known here.
        """
        return load_folder_of(cls, pretrained_model_name_or_path, **kwargs)

    @property
    def temporal_mode(self) -> TemporalMode:
        """SLICE for V3, MAGVIT for V2."""
        return self.shape.mode

    @property
    def spatial_factor(self) -> int:
        """Pixels of height and width for one of the latents."""
        return self.shape.spatial_factor

    @property
    def temporal_factor(self) -> int:
        """Pixel frames for one latent frame (the first of a causal chunk stands for itself alone)."""
        return self.shape.temporal_factor

    @property
    def frame_multiple(self) -> int:
        """A video has 1 frame or a multiple of this; 8 for V3, 9 for V2. Without chunks it has one frame more."""
        return self.shape.frames_per_chunk or self.temporal_factor

    def num_latent_frames(self, num_frames: int) -> int:
        """Latent frames of a video to be generated.

        Raises:
            ShapeError: neither 1 nor a multiple of `frame_multiple` (plus one without chunks); names the nearest.
        """
        offset = 0 if self.shape.frames_per_chunk else 1
        nearest = nearest_allowed(self.frame_multiple, offset, num_frames)
        if nearest != num_frames:
            raise ShapeError(
                f"num_frames must be 1 or a multiple of {self.frame_multiple}{' plus 1' * offset} for this VAE; given "
                f"{num_frames}. The nearest is {nearest}."
            )
        return count_latents(self.shape, num_frames)

    def num_frames(self, num_latent_frames: int) -> int:
        """Frames of a video of that many latent frames.

        Raises:
            ShapeError: no number of frames that `num_latent_frames` accepts gives that many; names the nearest.
        """
        chunked = self.shape.frames_per_chunk
        multiple = count_latents(self.shape, chunked) if chunked else 1
        nearest = nearest_allowed(multiple, 0 if chunked else 1, num_latent_frames)
        if nearest != num_latent_frames:
            raise ShapeError(
                f"num_latent_frames must be 1 or a multiple of {multiple} for this VAE; given {num_latent_frames}. "
                f"The nearest is {nearest}."
            )
        return count_frames(self.shape, num_latent_frames)

    @property
    def tiling(self) -> Tiling:
        """What is done about large pictures."""
        return self._tiling

    def enable_tiling(self, mode: Tiling | str = Tiling.EXACT, tile_size: int | None = None) -> None:
        """Choose what to do about large pictures.

        Args:
            mode: a `Tiling`, or its value.
            tile_size: for `EXACT`, edge of a tile at each layer, in pixels of its features; by default 128, and 80 in
                half precision. Reference tiles have the size that the config says.

        Raises:
            ConfigError: unknown mode, or a tile size that has no effect or is not positive.
        """
        mode = parse_tiling(mode)
        if tile_size is not None and (mode is not Tiling.EXACT or tile_size < 1):
            raise ConfigError(f"tile_size must be positive, and is for exact tiling only; given {tile_size}, {mode}.")
        self._tiling = mode
        self._exact_tile_size = tile_size

    def disable_tiling(self) -> None:
        """Whole pictures, however large."""
        self._tiling = Tiling.OFF

    def reset_tiling(self) -> None:
        """Do about large pictures what the config says, as a new VAE does."""
        self.enable_tiling(Tiling.REFERENCE if self.config["use_tiling"] else Tiling.AUTO)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """The posterior of the latents, not scaled.

        Args:
            x: pixels `[b, 3, f, h, w]`. f may be any number of frames that decoding gives back; an odd one, in slice
                mode, has its first frame encoded alone.
            return_dict: False returns a tuple.

        Returns:
            `latent_dist`, with `.mean`, `.mode()`, `.sample(generator)` and `.parameters [b, 2 c, n, h / 8, w / 8]`.

        Raises:
            ShapeError: not such a tensor, a height or width that is not a multiple of `spatial_factor`, or frames that
                would not come back.
            ConfigError: exact tiling while gradients are recorded.
        """
        posterior = posterior_of(self.moments(x))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def moments(self, x: Tensor) -> Tensor:
        """Mean and log variance of `encode`, one after the other: `[b, 2 c, n, h / 8, w / 8]`.

        Raises:
            ShapeError: as of `encode`.
            ConfigError: likewise.
        """
        return torch.cat(list(self._moments(x)), dim=2)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Pixels of latents.

        Args:
            z: `[b, c, n, h, w]`, with the scaling factor taken off. An odd n, in slice mode, has its first latent
                decoded alone, to one frame.
            return_dict: False returns a tuple.

        Returns:
            `sample`: pixels, not clamped.

        Raises:
            ShapeError: not such a tensor.
            ConfigError: exact tiling while gradients are recorded.
        """
        from diffusers.models.autoencoders.vae import DecoderOutput  # slow to import, with all VAEs there are

        sample = torch.cat(list(self.decode_chunks(z)), dim=2) if torch.is_grad_enabled() else self._decode_into_one(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    @apply_forward_hook
    def decode_chunks(self, z: Tensor) -> Iterator[Tensor]:
        """As `decode`, but yields pixels `[b, 3, n, h, w]` chunk by chunk, in order; none is kept.

        Raises:
            ShapeError: at once, not when the first chunk is asked for.
            ConfigError: likewise.
        """
        self._check(z, "latents", self.shape.latent_channels, 1)
        tile_size = self._tile_size_of_layers(z, self.spatial_factor)
        chunks = decoder_chunks(self.shape, z.shape[2])
        return (self._decode_chunk(z[:, :, c.window_start : c.window_stop], c, tile_size) for c in chunks)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple[Tensor]:
        """Encode and decode pixels; `sample_posterior` draws latents with `generator` instead of taking the mean."""
        posterior = posterior_of(self.moments(sample))
        latents = posterior.sample(generator) if sample_posterior else posterior.mode()
        return self.decode(latents, return_dict=return_dict)

    def _decode_into_one(self, z: Tensor) -> Tensor:
        """All frames; never two copies of them, as joining chunks in the end would make, for a video is large."""
        chunks = self.decode_chunks(z)
        frames = next(chunks)
        b, c, done, h, w = frames.shape
        sample = frames.new_empty(b, c, count_frames(self.shape, z.shape[2]), h, w)
        sample[:, :, :done] = frames
        for chunk in chunks:
            sample[:, :, done : done + chunk.shape[2]] = chunk
            done += chunk.shape[2]
        return sample

    def _moments(self, pixels: Tensor) -> Iterator[Tensor]:
        self._check(pixels, "pixels", self.shape.in_channels, self.spatial_factor)
        require_frames_that_return(self.shape, pixels.shape[2])
        tile_size = self._tile_size_of_layers(pixels)

        def encode(part: Tensor) -> Tensor:
            return self.quant_conv(self.encoder(part, tile_size))

        tiled = self._is_tiled(pixels, self._grid.sample_size)
        for chunk in encoder_chunks(self.shape, pixels.shape[2]):
            part = pixels[:, :, chunk]
            yield self._grid.encode(part, encode) if tiled else encode(part)

    def _decode_chunk(self, window: Tensor, chunk: DecoderChunk, tile_size: int | None) -> Tensor:
        def decode(part: Tensor) -> Tensor:
            return self.decoder(self.post_quant_conv(part), chunk.kept, chunk.doubles_time, tile_size)

        if not self._is_tiled(window, self._grid.latent_size):
            return decode(window)
        pixels = self._grid.decode(window, decode)
        return self._grid.mix_corner(pixels, window, decode) if self._tiling is Tiling.REFERENCE else pixels

    def _is_tiled(self, x: Tensor, size: int) -> bool:
        return self._tiling in {Tiling.REFERENCE, Tiling.REFERENCE_LAUNCH} and max(x.shape[-2:]) > size

    def _tile_size_of_layers(self, x: Tensor, factor: int = 1) -> int | None:
        """For pixels, or for latents of `factor` pixels each way."""
        is_half = x.element_size() < 4
        if self._tiling is Tiling.AUTO:
            is_large = x.shape[-2] * x.shape[-1] * factor**2 > _LARGE
            return _EXACT_TILE_SIZE_IN_HALF if is_large and is_half and not torch.is_grad_enabled() else None
        if self._tiling is not Tiling.EXACT:
            return None
        if torch.is_grad_enabled():
            raise ConfigError("Exact tiling records no gradients: use torch.no_grad(), or disable_tiling() to train.")
        return self._exact_tile_size or (_EXACT_TILE_SIZE_IN_HALF if is_half else _EXACT_TILE_SIZE)

    @staticmethod
    def _check(x: Tensor, name: str, channels: int, factor: int) -> None:
        if x.ndim != 5 or x.shape[1] != channels or min(x.shape) < 1:
            raise ShapeError(f"{name} must be [b, {channels}, frames, height, width]; given {tuple(x.shape)}.")
        height, width = x.shape[-2:]
        if height % factor or width % factor:
            nearest = "x".join(str(max(factor, round(size / factor) * factor)) for size in (width, height))
            raise ShapeError(
                f"Width and height must be multiples of {factor}; given {width}x{height}. The nearest is {nearest}."
            )


def posterior_of(moments: Tensor) -> DiagonalGaussianDistribution:
    """The distribution whose mean and log variance these are, one after the other on the axis of channels."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution  # as above

    return DiagonalGaussianDistribution(moments)
