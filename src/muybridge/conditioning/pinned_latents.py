"""What is given of a video, as latents: beside those of the network, where denoising starts, and after every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from muybridge.conditioning.known import PlacedLatents
from muybridge.conditioning.pinned import PinnedVideo
from muybridge.vae.codec import Codec
from muybridge.vae.frames import to_uint8


class NoiseSchedule(Protocol):
    """A solver, as far as noise is added."""

    def add_noise(self, original: Tensor, noise: Tensor, timesteps: Tensor, /) -> Tensor:
        """`original` with noise of the levels `timesteps [b]`."""
        ...


@dataclass(frozen=True)
class LatentVideo:
    """Latents of a batch's conditions, scaled, float32; b is 1 where the videos share them.

    Attributes:
        video: of the source video, `[b, c, f, h, w]`, or None where denoising starts from noise alone.
        inpaint: of the mask, then of the masked video, `[b, 2c, f, h, w]`; None for models without channels for it.
    """

    video: Tensor | None
    inpaint: Tensor | None


def encode_pinned(
    codec: Codec,
    pinned: PinnedVideo,
    device: torch.device,
    generators: Sequence[torch.Generator],
    with_inpaint: bool,
    with_video: bool,
    known: PlacedLatents | None = None,
) -> LatentVideo:
    """Encode the conditions of a video.

    The mask (1 is to be made) goes through the VAE like a picture but in [0, 1], as in the original; where pixels are
    to be made, the masked video is black.

    Args:
        codec: of the model.
        pinned: what is given.
        device: where pixels are made, that of the VAE.
        generators: one for each video of the batch, which samples the posteriors in the original's order; none takes
            their means, which are the same for all.
        with_inpaint: whether the network has channels for mask and masked video.
        with_video: whether denoising starts from the source video.
        known: latents of the masked video that are known as such; their frames are not unknown in `pinned`.
    """

    def encode(choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return _encode(codec, pinned, device, generators, choose)

    video = encode(lambda pixels, _: pixels) if with_video else None
    if not with_inpaint:
        return LatentVideo(video, None)
    mask = encode(lambda _, unknown: unknown.expand(-1, 3, -1, -1, -1))
    masked = encode(lambda pixels, unknown: torch.where(unknown > 0.5, -1.0, pixels))
    if known is not None:
        masked = known.put_into(masked)
        mask = mask.expand(len(masked), -1, -1, -1, -1)
    return LatentVideo(video, torch.cat((mask, masked), dim=1))


@dataclass(frozen=True, eq=False)
class Kept:
    """Latents that no step may change.

    Attributes:
        clean: `[b, c, f, h, w]` without noise; b may be 1.
        share: weight of what is made, from 0 (kept) to 1, to be broadcast against `clean`.
    """

    clean: Tensor
    share: Tensor

    def put_into(self, latents: Tensor, noise: Tensor, solver: NoiseSchedule, timestep: Tensor | None) -> Tensor:
        """`latents` of noise level `timestep [1]` (None: without noise) with the kept part in its place."""
        known = self.clean.expand_as(latents)
        if timestep is not None:
            known = solver.add_noise(known, noise, timestep.expand(len(noise)))
        return torch.lerp(known, latents, self.share)

    def after_step(self, noise: Tensor, solver: NoiseSchedule, timesteps: Tensor) -> Callable[[int, Tensor], Tensor]:
        """What puts the kept part back after a step of `timesteps`; after the last step, without noise."""

        def put_back(index: int, latents: Tensor) -> Tensor:
            level = timesteps[index + 1 : index + 2] if index + 1 < len(timesteps) else None
            return self.put_into(latents, noise, solver, level)

        return put_back


def kept_of(
    codec: Codec,
    pinned: PinnedVideo,
    device: torch.device,
    known: PlacedLatents | None,
    noise: Tensor,
    takes_pictures: bool,
) -> Kept | None:
    """What is put back after every step, if anything.

    Known latents are, so that a video has the very latents that it continues; and what is pinned where the model has no
    channels for a mask.
    """
    if known is not None:
        made = (~known.is_known).to(noise)[:, None, None]
        return Kept(known.put_into(torch.zeros_like(noise)), made)
    if takes_pictures or pinned.all_unknown:
        return None
    clean = _encode(codec, pinned, device, (), lambda pixels, _: pixels).to(noise)
    unknown = torch.from_numpy(pinned.unknown).to(noise)[None, None]
    return Kept(clean, F.interpolate(unknown, size=noise.shape[2:], mode="trilinear", align_corners=True))


def first_picture(codec: Codec, pinned: PinnedVideo, known: PlacedLatents | None) -> Image.Image | None:
    """The first of the frames that are given, for an image encoder; None where none is."""
    if known is None:
        return pinned.picture
    first = int(np.flatnonzero(~pinned.unknown.all((1, 2)))[0])
    if not known.frames(len(pinned.unknown))[first]:
        return pinned.picture
    piece = known.first_piece(codec.latents_per_piece or 1)
    return Image.fromarray(to_uint8(next(iter(codec.decode(piece))))[0])


def _piece(pinned: PinnedVideo, device: torch.device, frames: slice) -> tuple[Tensor, Tensor]:
    """Pixels `[1, 3, n, h, w]` in [-1, 1] and what is unknown of them `[1, 1, n, h, w]`; float32."""
    pixels = torch.from_numpy(pinned.frames[frames]).to(device).permute(3, 0, 1, 2)[None].float().div_(127.5).sub_(1.0)
    return pixels, torch.from_numpy(pinned.unknown[frames]).to(pixels)[None, None]


def _encode(
    codec: Codec,
    pinned: PinnedVideo,
    device: torch.device,
    generators: Sequence[torch.Generator],
    choose: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Latents of what `choose` makes of pixels and what is unknown of them."""
    num_frames = len(pinned.frames)
    count = codec.frames_at_once or num_frames

    def piece(start: int) -> Tensor:
        return choose(*_piece(pinned, device, slice(start, start + count)))

    # As many frames at a time as go together, by map, which keeps none: a whole video would take more than all else.
    return codec.encode(lambda: map(piece, range(0, num_frames, count)), num_frames, generators)
