"""What is given of a video, as EasyAnimate's transformer takes it: latents of the mask and of the masked video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from muybridge.conditioning import PinnedVideo
from muybridge.debug import first_anomalous_module
from muybridge.errors import NonFiniteError
from muybridge.pipelines.base import StepCallback
from muybridge.pipelines.decoding import to_uint8
from muybridge.pipelines.easyanimate_task import Task
from muybridge.pipelines.known_latents import KnownLatents, latents_per_piece
from muybridge.sampling import Scheduler
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.device import working_device
from muybridge.vae.magvit import decode_frames, encode_frames, smooth_output


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
    vae: AutoencoderKLMagvit,
    pinned: PinnedVideo,
    generators: Sequence[torch.Generator],
    with_inpaint: bool,
    with_video: bool,
    known: KnownLatents | None = None,
) -> LatentVideo:
    """Encode the conditions of a video.

    The mask (1 is to be made) goes through the VAE like a picture but in [0, 1], as in the original; where pixels are
    to be made, the masked video is black.

    Args:
        vae: of the model.
        pinned: what is given.
        generators: one for each video of the batch, which samples the posteriors in the original's order; none takes
            their means, which are the same for all.
        with_inpaint: whether the transformer has channels for mask and masked video.
        with_video: whether denoising starts from the source video.
        known: latents of the masked video that are known as such; their frames are not unknown in `pinned`.
    """
    video = _encode(vae, pinned, generators, lambda pixels, _: pixels) if with_video else None
    if not with_inpaint:
        return LatentVideo(video, None)
    mask = _encode(vae, pinned, generators, lambda _, unknown: unknown.expand(-1, 3, -1, -1, -1))
    masked = _encode(vae, pinned, generators, lambda pixels, unknown: torch.where(unknown > 0.5, -1.0, pixels))
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

    def put_into(self, latents: Tensor, noise: Tensor, solver: Scheduler, timestep: Tensor | None) -> Tensor:
        """`latents` of noise level `timestep [1]` (None: without noise) with the kept part in its place."""
        known = self.clean.expand_as(latents)
        if timestep is not None:
            known = solver.add_noise(known, noise, timestep.expand(len(noise)))
        return torch.lerp(known, latents, self.share)

    def after_steps(
        self, noise: Tensor, solver: Scheduler, timesteps: Tensor, callback: StepCallback | None
    ) -> StepCallback:
        """A step callback that puts the kept part back after `callback`; after the last step, without noise."""

        def put_back(pipeline: Any, index: int, timestep: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
            if callback is not None:
                values = {**values, **(callback(pipeline, index, timestep, values) or {})}
            level = timesteps[index + 1 : index + 2] if index + 1 < len(timesteps) else None
            return {"latents": self.put_into(values["latents"], noise, solver, level)}

        return put_back


def kept_of(vae: AutoencoderKLMagvit, task: Task, noise: Tensor, takes_pictures: bool) -> Kept | None:
    """What is put back after every step, if anything.

    Known latents are, so that a video has the very latents that it continues; and what is pinned where the model has no
    channels for a mask.
    """
    if task.known is not None:
        made = (~task.known.is_known).to(noise)[:, None, None]
        return Kept(task.known.put_into(torch.zeros_like(noise)), made)
    if takes_pictures or task.pinned.all_unknown:
        return None
    clean = _encode(vae, task.pinned, (), lambda pixels, _: pixels).to(noise)
    unknown = torch.from_numpy(task.pinned.unknown).to(noise)[None, None]
    return Kept(clean, F.interpolate(unknown, size=noise.shape[2:], mode="trilinear", align_corners=True))


def first_picture(vae: AutoencoderKLMagvit, task: Task) -> Image.Image | None:
    """The first of the frames that are given, for an image encoder; None where none is."""
    if task.known is None:
        return task.pinned.picture
    first = int(np.flatnonzero(~task.pinned.unknown.all((1, 2)))[0])
    if not task.known.frames(task.num_frames)[first]:
        return task.pinned.picture
    piece = task.known.first_piece(latents_per_piece(vae))
    return Image.fromarray(to_uint8(next(decode_video(vae, piece)))[0])


def decode_video(
    vae: AutoencoderKLMagvit, latents: Tensor, smoothing: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Decode one video, piece by piece.

    Args:
        vae: of the model.
        latents: `[c, f, h, w]`, scaled as the transformer sees them.
        smoothing: hides the seams between the pieces as the original does, by a second pass over the whole video whose
            posteriors this samples; then there is one piece only. None makes no second pass.

    Yields:
        `float32 [n, 3, h, w]` in [0, 1], on the CPU.

    Raises:
        NonFiniteError: the VAE gave NaN or infinite values.
    """
    scaled = (latents / vae.config["scaling_factor"]).to(working_device(vae), vae.dtype)
    pieces = (piece.clamp_(-1, 1) for piece in decode_frames(vae, scaled))
    if smoothing is not None:
        whole = torch.cat(list(pieces), dim=1)[None]
        pieces = iter([smooth_output(vae, whole, smoothing)[0]])
    for piece in pieces:
        frames = piece.float()
        if not bool(torch.isfinite(frames).all()):
            layer = first_anomalous_module(vae, lambda: sum(1 for _ in decode_frames(vae, scaled)))
            raise NonFiniteError(_not_finite("pixels", vae, layer))
        yield frames.div(2).add_(0.5).clamp_(0, 1).transpose(0, 1).cpu()


def _pieces(vae: AutoencoderKLMagvit, pinned: PinnedVideo) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels `[1, 3, n, h, w]` in [-1, 1] and what is unknown of them `[1, 1, n, h, w]`, as many frames as go together.

    Float32: a whole video would take more than anything else.
    """
    device, count = working_device(vae), vae.shape.frames_per_chunk or len(pinned.frames)
    for start in range(0, len(pinned.frames), count):
        frames = torch.from_numpy(pinned.frames[start : start + count]).to(device)
        pixels = frames.permute(3, 0, 1, 2)[None].float().div_(127.5).sub_(1.0)
        yield pixels, torch.from_numpy(pinned.unknown[start : start + count]).to(pixels)[None, None]


def _encode(
    vae: AutoencoderKLMagvit,
    pinned: PinnedVideo,
    generators: Sequence[torch.Generator],
    choose: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Scaled latents of what `choose` makes of pixels and what is unknown of them."""

    def chosen() -> Iterator[Tensor]:
        return (choose(*piece).to(vae.dtype) for piece in _pieces(vae, pinned))

    moments = torch.cat(list(encode_frames(vae, chosen(), len(pinned.frames))), dim=2)
    if not bool(torch.isfinite(moments).all()):
        layer = first_anomalous_module(vae, lambda: list(encode_frames(vae, chosen(), len(pinned.frames))))
        raise NonFiniteError(_not_finite("latents", vae, layer))
    posterior = DiagonalGaussianDistribution(moments)
    drawn = [posterior.sample(generator) for generator in generators]
    latents = torch.cat(drawn) if drawn else posterior.mode()
    return latents.float() * vae.config["scaling_factor"]


def _not_finite(what: str, vae: AutoencoderKLMagvit, layer: str | None) -> str:
    return (
        f"The VAE gave NaN or infinite {what} in {vae.dtype}, first in {layer or 'its output'}. Run it in float32 or "
        "bfloat16, as in pipeline.vae.to(torch.float32); if it is, check its weights."
    )
