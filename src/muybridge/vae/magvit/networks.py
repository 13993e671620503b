"""Encoder and decoder, each on one chunk of frames."""

from __future__ import annotations

from torch import Tensor, nn

from muybridge.vae.magvit.blocks import DownLevel, MidLevel, UpLevel
from muybridge.vae.magvit.config import MagvitConfig
from muybridge.vae.magvit.halo import Activated, Plain, convolve
from muybridge.vae.magvit.layers import GroupNorm, VideoConvolution, silu


class Encoder(nn.Module):
    """Pixels to twice as many channels as latents have: mean and log variance."""

    def __init__(self, config: MagvitConfig) -> None:
        """Weight names are the original's."""
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = VideoConvolution(config, config.in_channels, channels[0])
        self.down_blocks = nn.ModuleList(DownLevel(config, level) for level in range(len(channels)))
        self.mid_block = MidLevel(config)
        self.conv_norm_out = GroupNorm(config, channels[-1])
        self.conv_out = VideoConvolution(config, channels[-1], 2 * config.latent_channels)

    def forward(self, pixels: Tensor, tile_size: int | None = None) -> Tensor:
        """`[b, 3, f, h, w]` to `[b, 2 c, f', h / 8, w / 8]` (at the factors of the published config)."""
        x = _convolve(self.conv_in, pixels, tile_size)
        for block in self.down_blocks:
            x = block(x, tile_size)
        return _finish(self.conv_norm_out, self.conv_out, self.mid_block(x, tile_size), tile_size)


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: MagvitConfig) -> None:
        """Weight names are the original's."""
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = VideoConvolution(config, config.latent_channels, channels[-1])
        self.mid_block = MidLevel(config)
        self.up_blocks = nn.ModuleList(UpLevel(config, index) for index in range(len(channels)))
        self.conv_norm_out = GroupNorm(config, channels[0])
        self.conv_out = VideoConvolution(config, channels[0], config.out_channels)

    def forward(self, latents: Tensor, kept: slice, doubles_time: bool = True, tile_size: int | None = None) -> Tensor:
        """`[b, c, n, h, w]` to the pixels of the latent frames `kept`; the others are seen by the first layers only."""
        x = self.mid_block(_convolve(self.conv_in, latents, tile_size), tile_size)
        x = x[:, :, kept].contiguous()
        for block in self.up_blocks:
            x = block(x, doubles_time, tile_size)
        return _finish(self.conv_norm_out, self.conv_out, x, tile_size)


def _convolve(convolution: VideoConvolution, x: Tensor, tile_size: int | None) -> Tensor:
    return convolution(x) if tile_size is None else convolve(convolution, Plain(x), tile_size)


def _finish(norm: GroupNorm, convolution: VideoConvolution, x: Tensor, tile_size: int | None) -> Tensor:
    if tile_size is None:
        return convolution(silu(norm(x)))
    return convolve(convolution, Activated(x, norm, tile_size), tile_size)
