"""Latents that a video must contain: those of the video it continues, without the way through 8-bit pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from muybridge.conditioning.pinned import PinnedVideo
from muybridge.errors import ConfigError, ShapeError
from muybridge.types import LatentShape
from muybridge.vae.codec import Codec


@dataclass(frozen=True, eq=False)
class PlacedLatents:
    """Some latent frames of a video.

    Attributes:
        values: `[b, c, n, h, w]`, as the transformer sees them, 0 where nothing is known; b is 1 where all videos of a
            batch share them.
        is_known: bool `[n]`.
    """

    values: Tensor
    is_known: Tensor

    def check_batch(self, count: int) -> None:
        """Raises ShapeError unless these are of one video or of `count` videos."""
        if len(self.values) not in {1, count}:
            raise ShapeError(
                f"known_latents are of {len(self.values)} videos, and {count} are made. Give those of one video for "
                "all, or as many as are made."
            )

    def put_into(self, latents: Tensor) -> Tensor:
        """`latents [b, c, n, h, w]` with the known ones in their place; b may be 1."""
        where = self.is_known.to(latents.device)[:, None, None]
        return torch.where(where, self.values.to(latents), latents)

    def frames(self, num_frames: int) -> npt.NDArray[np.bool_]:
        """`bool [num_frames]`, True for the frames that are decoded from known latents."""
        known = self.is_known.cpu().numpy()
        # Whole pieces of the VAE are known or not, so any latent of a piece speaks for its frames.
        return known[np.arange(num_frames) * len(known) // num_frames]

    def first_piece(self, size: int) -> Tensor:
        """The first known piece of `size` latent frames, of the first video, `[c, n, h, w]`."""
        start = int(self.is_known.int().argmax())
        return self.values[0, :, start : start + size]


def collect_known(codec: Codec, given: Mapping[int, Tensor], shape: LatentShape) -> PlacedLatents:
    """Check known latents and put them at their places.

    Args:
        codec: whose pieces are known as a whole: what a latent says depends on its place in the piece.
        given: by their first latent frame, negative numbers count from the end: `[b, c, n, h, w]`.
        shape: of the latents of the whole video.

    Raises:
        ShapeError: of another size, outside the video, or no whole pieces.
        ConfigError: none, two for one latent frame, or a VAE that takes all frames at once.
    """
    if not given:
        raise ConfigError("There are no latents in known_latents; leave it out, or give some, as in {0: latents}.")
    piece, first = codec.latents_per_piece, next(iter(given.values()))
    if piece is None:
        raise ConfigError("known_latents need a VAE that works piece by piece; this one takes all frames at once.")
    values = first.new_zeros(len(first), shape.channels, shape.num_latent_frames, shape.height, shape.width)
    is_known = torch.zeros(shape.num_latent_frames, dtype=torch.bool)
    for index, latents in given.items():
        start = index + shape.num_latent_frames if index < 0 else index
        expected = (len(first), shape.channels, shape.height, shape.width)
        if latents.ndim != 5 or (*latents.shape[:2], *latents.shape[3:]) != expected:
            batch, channels, height, width = expected
            raise ShapeError(
                f"known_latents must be [{batch}, {channels}, n, {height}, {width}] for this call; given "
                f"{list(latents.shape)}."
            )
        stop = start + latents.shape[2]
        if not 0 <= start < stop <= shape.num_latent_frames:
            raise ShapeError(
                f"The video has {shape.num_latent_frames} latent frames; known_latents {start} to {stop - 1} are "
                "outside."
            )
        if start % piece or stop % piece:
            raise ShapeError(
                f"known_latents must be whole pieces of the VAE, from one multiple of {piece} latent frames on; "
                f"given {start} to {stop}. Around them: {start // piece * piece} to {-(-stop // piece) * piece}."
            )
        if bool(is_known[start:stop].any()):
            raise ConfigError(f"Some of the latent frames {start} to {stop - 1} are given twice in known_latents.")
        values[:, :, start:stop] = latents.detach()
        is_known[start:stop] = True
    return PlacedLatents(values, is_known)


def mark_known(known: PlacedLatents, pinned: PinnedVideo) -> PinnedVideo:
    """A video with the frames of known latents marked as known.

    Raises:
        ConfigError: a frame that is pinned already, or nothing left to be made.
    """
    frames = known.frames(pinned.unknown.shape[0])
    if not pinned.unknown[frames].all():
        twice = int(np.flatnonzero(frames & ~pinned.unknown.any((1, 2)))[0])
        raise ConfigError(f"Frame {twice} is given by a keyframe and by known_latents. Leave one of them out.")
    unknown = pinned.unknown & ~frames[:, None, None]
    if not unknown.any():
        raise ConfigError(f"All {len(frames)} frames are given; there is nothing to make. Give fewer known_latents.")
    return replace(pinned, unknown=unknown)
