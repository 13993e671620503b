"""A VAE as everything above it uses one: videos to latents and back, whatever it knows of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from muybridge.types import LatentShape, VideoShape

Pieces = Callable[[], Iterator[Tensor]]
"""Gives pixels of a video from its start, `[1, 3, n, h, w]`, at most `frames_at_once` at a time."""


class Codec(Protocol):
    """From pixels to latents as the backbone sees them, scaled and float32, and from these to frames."""

    @property
    def frame_multiple(self) -> int:
        """Numbers of frames above 1 are multiples of this."""
        ...

    @property
    def spatial(self) -> int:
        """Pixels of height and width that a latent stands for."""
        ...

    @property
    def latents_per_piece(self) -> int | None:
        """Latent frames that are made together and apart from others; None where all depend on all."""
        ...

    @property
    def frames_at_once(self) -> int | None:
        """Frames that are encoded together; None for all."""
        ...

    def latent_shape(self, shape: VideoShape) -> LatentShape:
        """The latents of a video.

        Raises:
            ShapeError: a size or number of frames that cannot be; names the nearest that can.
        """
        ...

    def encode(self, pieces: Pieces, num_frames: int, generators: Sequence[torch.Generator] = ()) -> Tensor:
        """Latents `[b, c, f, h, w]` of a video.

        Args:
            pieces: its pixels in [-1, 1].
            num_frames: how many they are.
            generators: each samples the posteriors once, for a video of a batch; none takes their means, b is 1 then.

        Raises:
            NonFiniteError: NaN or infinite values.
        """
        ...

    def decode(self, latents: Tensor, smoothing: torch.Generator | None = None) -> Iterator[Tensor]:
        """Frames of one video, `float32 [n, 3, h, w]` in [0, 1] on the CPU, a few at a time.

        Args:
            latents: `[c, f, h, w]`.
            smoothing: hides seams between pieces by a second pass that it samples, where the VAE has one.

        Raises:
            NonFiniteError: NaN or infinite values.
        """
        ...


def frames_per_latent(codec: Codec) -> int:
    """Frames that a latent frame stands for, but perhaps the first."""
    return codec.frame_multiple // (codec.latents_per_piece or 1)
