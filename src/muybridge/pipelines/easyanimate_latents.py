"""What is given of a video, as EasyAnimate's transformer takes it: latents of the mask and of the masked video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from muybridge.conditioning import PinnedVideo
from muybridge.errors import NonFiniteError
from muybridge.pipelines.base import StepCallback
from muybridge.sampling import Scheduler
from muybridge.vae import AutoencoderKLMagvit
from muybridge.vae.magvit import decode_frames, smooth_output


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
    """
    pixels = _to_pixels(vae, pinned)
    unknown = torch.from_numpy(pinned.unknown).to(pixels)[None, None]
    video = _encode(vae, pixels, generators) if with_video else None
    if not with_inpaint:
        return LatentVideo(video, None)
    mask = _encode(vae, unknown.expand(-1, 3, -1, -1, -1), generators)
    masked = _encode(vae, torch.where(unknown > 0.5, -1.0, pixels), generators)
    return LatentVideo(video, torch.cat((mask, masked), dim=1))


def known_kept(
    vae: AutoencoderKLMagvit,
    pinned: PinnedVideo,
    noise: Tensor,
    solver: Scheduler,
    timesteps: Tensor,
    callback: StepCallback | None,
) -> StepCallback:
    """A step callback that puts the known part back after every step, for models without channels for a mask."""
    clean = _encode(vae, _to_pixels(vae, pinned), ()).to(noise).expand_as(noise)
    unknown = torch.from_numpy(pinned.unknown).to(noise)[None, None]
    share = F.interpolate(unknown, size=noise.shape[2:], mode="trilinear", align_corners=True)

    def put_back(pipeline: Any, index: int, timestep: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if callback is not None:
            values = {**values, **(callback(pipeline, index, timestep, values) or {})}
        known = clean
        if index + 1 < len(timesteps):
            known = solver.add_noise(clean, noise, timesteps[index + 1 : index + 2].expand(len(noise)))
        return {"latents": torch.lerp(known, values["latents"], share)}

    return put_back


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
    scaled = (latents / vae.config["scaling_factor"]).to(vae.dtype)
    pieces = (piece.clamp_(-1, 1) for piece in decode_frames(vae, scaled))
    if smoothing is not None:
        whole = torch.cat(list(pieces), dim=1)[None]
        pieces = iter([smooth_output(vae, whole, smoothing)[0]])
    for piece in pieces:
        frames = piece.float()
        if not bool(torch.isfinite(frames).all()):
            raise NonFiniteError(
                f"The VAE gave NaN or infinite pixels in {vae.dtype}. Run it in float32 or bfloat16; if it is, check "
                "its weights."
            )
        yield frames.div(2).add_(0.5).clamp_(0, 1).transpose(0, 1).cpu()


def _to_pixels(vae: AutoencoderKLMagvit, pinned: PinnedVideo) -> Tensor:
    frames = torch.from_numpy(pinned.frames).to(vae.device)
    return frames.permute(3, 0, 1, 2)[None].float().div_(127.5).sub_(1.0)


def _encode(vae: AutoencoderKLMagvit, pixels: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    with torch.no_grad():
        posterior: Any = vae.encode(pixels.to(vae.dtype), return_dict=False)[0]
    drawn = [posterior.sample(generator) for generator in generators]
    latents = torch.cat(drawn) if drawn else posterior.mode()
    return latents.float() * vae.config["scaling_factor"]
