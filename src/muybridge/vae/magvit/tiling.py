"""Large pictures in overlapping tiles that the network sees as pictures of their own, blended: the original's way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from muybridge.errors import ConfigError


class Tiling(Enum):
    """What to do about pictures whose activations do not fit in memory."""

    AUTO = "auto"
    """EXACT for large pictures in half precision, where no gradient is recorded; else OFF, whose bits float32 keeps."""
    OFF = "off"
    """Every layer sees the whole picture."""
    EXACT = "exact"
    """The numbers of OFF, without seams, in less memory: convolutions run in tiles, layer by layer. Inference only."""
    REFERENCE = "reference"
    """As the original since version 4 (d3b8bbb): blended tiles, and the lower right corner decoded once more."""
    REFERENCE_LAUNCH = "reference-launch"
    """As the original when V3 came out (f9eeabe): blended tiles."""


def parse_tiling(mode: Tiling | str) -> Tiling:
    """The member for its value.

    Raises:
        ConfigError: unknown; the message lists the known ones.
    """
    try:
        return Tiling(mode)
    except ValueError:
        known = ", ".join(member.value for member in Tiling)
        raise ConfigError(f"Unknown tiling {mode!r}. Known: {known}.") from None


@dataclass(frozen=True)
class TileGrid:
    """Overlapping tiles, at the size of latents and at that of pixels.

    Attributes:
        latent_size: edge of a tile in latents.
        latent_overlap: how far neighbouring tiles reach into each other, in latents.
        spatial_factor: pixels for one of the latents.
    """

    latent_size: int
    latent_overlap: int
    spatial_factor: int

    @classmethod
    def from_settings(cls, sample_size: int, overlap: float, spatial_factor: int) -> TileGrid:
        """From the edge of a tile in pixels and the fraction of it that overlaps.

        Raises:
            ConfigError: tiles or overlaps that are not whole latents, or tiles that overlap completely.
        """
        latent_size, rest = divmod(sample_size, spatial_factor)
        latent_overlap = latent_size * overlap
        if rest or latent_size < 1 or not 0 <= overlap < 1 or latent_overlap != int(latent_overlap):
            raise ConfigError(
                f"tile_sample_min_size must be a multiple of {spatial_factor}, of which tile_overlap_factor (from 0, "
                f"below 1) takes a whole number of {spatial_factor} pixels; given {sample_size} and {overlap}."
            )
        return cls(latent_size, int(latent_overlap), spatial_factor)

    @property
    def sample_size(self) -> int:
        """Edge of a tile in pixels."""
        return self.latent_size * self.spatial_factor

    def encode(self, pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Moments `[b, d, n, h / 8, w / 8]` of pixels `[b, c, f, h, w]`; `encode` does one tile."""
        return _blended(pixels, encode, self.sample_size, self.latent_size, self.latent_overlap)

    def decode(self, latents: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """Pixels of latents; `decode` does one tile."""
        overlap = self.latent_overlap * self.spatial_factor
        return _blended(latents, decode, self.latent_size, self.sample_size, overlap)

    def mix_corner(self, pixels: Tensor, latents: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """Decode the lower right tile of `latents` once more and mix it over `pixels`, more towards the corner."""
        again = decode(latents[..., -self.latent_size :, -self.latent_size :])
        height, width = again.shape[-2:]
        options = {"dtype": again.dtype, "device": again.device}
        down, across = (torch.linspace(0, 1, length, **options) for length in (height, width))
        weight = torch.minimum(down[:, None], across[None, :])
        corner = pixels[..., -height:, -width:]
        corner.copy_(again * weight + corner * (1 - weight))
        return pixels


def _blended(
    x: Tensor, compute: Callable[[Tensor], Tensor], size: int, result_size: int, result_overlap: int
) -> Tensor:
    """Tiles of `size` of `x`, each blended into those above and left of it where they overlap.

    A tile is blended with the one above before it is blended with the one to the left, and neighbours see it blended:
    the order of the original.
    """
    step = size - size * result_overlap // result_size
    keep = result_size - result_overlap
    strips: list[Tensor] = []
    above: list[Tensor] = []
    for top in range(0, x.shape[-2], step):
        row: list[Tensor] = []
        for column, left in enumerate(range(0, x.shape[-1], step)):
            tile = compute(x[..., top : top + size, left : left + size])
            if above:
                _blend(above[column], tile, result_overlap, -2)
            if row:
                _blend(row[-1], tile, result_overlap, -1)
            row.append(tile)
        strips.append(torch.cat([tile[..., :keep, :keep] for tile in row], dim=-1))
        above = row
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=-2)


def _blend(before: Tensor, tile: Tensor, overlap: int, axis: int) -> None:
    """Fade in place from the end of `before` to the start of `tile`, along an axis."""
    extent = min(overlap, before.shape[axis], tile.shape[axis])
    if extent == 0:
        return
    ramp = torch.arange(extent, device=tile.device, dtype=torch.float32).div_(extent).to(tile.dtype)
    ramp = ramp[:, None] if axis == -2 else ramp
    end = before.narrow(axis, before.shape[axis] - extent, extent)
    start = tile.narrow(axis, 0, extent)
    start.copy_(end * (1 - ramp) + start * ramp)
