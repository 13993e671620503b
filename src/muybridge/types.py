"""Value types without behaviour of a model: shapes of videos and latents, factors between them, settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muybridge.errors import ShapeError

SettingsDict = dict[str, Any]
"""Values by name as a JSON or YAML document, the config of a model or the keyword arguments of a constructor has them:
what each may be is known to who reads it, not to who hands it on. Where all values are of one type, say that type."""

SettingsView = Mapping[str, Any]
"""The same where it is only read."""


@dataclass(frozen=True)
class VideoShape:
    """Pixel extent of a video."""

    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class LatentShape:
    """Extent of a video's latents."""

    channels: int
    num_latent_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class ScaleFactors:
    """How many pixels of height and width one latent stands for; derived from a VAE, never written down elsewhere."""

    spatial: int

    def latent_shape(self, video: VideoShape, channels: int) -> LatentShape:
        """The latents of a video.

        Raises:
            ShapeError: fewer than one frame, or a height or width that is not a positive multiple of the spatial
                factor; the message names the nearest that is.
        """
        if video.num_frames < 1:
            raise ShapeError(f"num_frames must be at least 1; given {video.num_frames}.")
        if video.height % self.spatial or video.width % self.spatial or min(video.height, video.width) < 1:
            raise ShapeError(
                f"Width and height must be positive multiples of {self.spatial}; given {video.width}x{video.height}. "
                f"The nearest is {self._nearest(video.width)}x{self._nearest(video.height)}."
            )
        return LatentShape(channels, video.num_frames, video.height // self.spatial, video.width // self.spatial)

    def _nearest(self, pixels: int) -> int:
        return max(self.spatial, round(pixels / self.spatial) * self.spatial)
