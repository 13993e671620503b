"""FreeInit: denoise several times, each time from what the last result had in its low frequencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.request.sampling import FreeInit
from muybridge.sampling.noise import draw_noise
from muybridge.sampling.schedulers import Scheduler, set_timesteps
from muybridge.types import LatentShape

_AXES = (-3, -2, -1)


def check_levels(
    settings: FreeInit, scheduler: Scheduler, num_steps: int, spans: Sequence[tuple[float, float]]
) -> None:
    """Whether every pass has a step in every span: what acts at some noise levels only must act in short passes.

    Args:
        settings: how to repeat.
        scheduler: its timesteps are set for each pass, and in the end for the whole one.
        num_steps: steps of a whole pass.
        spans: lowest and highest noise level (timestep) of each such thing.

    Raises:
        ConfigError: a pass has none; names it.
    """
    noisiest = scheduler.config["num_train_timesteps"] - 1
    try:
        for index in range(settings.passes if settings.coarse_to_fine else 0):
            count = settings.steps_of(index, num_steps)
            set_timesteps(scheduler, count)
            levels = [float(level) for level in scheduler.timesteps]
            for lowest, highest in spans:
                if not any(lowest <= level <= highest for level in levels):
                    counts = f"{max(lowest, 0):g} to {min(highest, noisiest):g}"
                    raise ConfigError(
                        f"Pass {index + 1} of {settings.passes} of FreeInit has {count} of {num_steps} steps, and none "
                        f"of them is where a control counts (noise levels {counts}), so it would "
                        "run without. Widen the range of the control, take more steps, or leave coarse_to_fine out."
                    )
    finally:
        set_timesteps(scheduler, num_steps)


def low_pass(settings: FreeInit, num_frames: int, height: int, width: int) -> Tensor:
    """How much of each frequency is kept, `[f, h, w]` in [0, 1], float32; frequency zero is in the centre.

    As the authors have it, the "ideal" filter compares a squared distance with twice the stop frequency.
    """
    t, h, w = (2 * torch.arange(size, dtype=torch.float64) / size - 1 for size in (num_frames, height, width))
    ratio = settings.spatial_stop / settings.temporal_stop
    distance = (ratio * t)[:, None, None] ** 2 + h[:, None] ** 2 + w**2
    if settings.kind == "butterworth":
        kept = 1 / (1 + (distance / settings.spatial_stop**2) ** settings.order)
    elif settings.kind == "gaussian":
        kept = torch.exp(-distance / (2 * settings.spatial_stop**2))
    else:
        kept = distance <= 2 * settings.spatial_stop
    return kept.float()


def mix_frequencies(low: Tensor, high: Tensor, kept: Tensor) -> Tensor:
    """What `kept [f, h, w]` keeps of `low [b, c, f, h, w]`, and of `high` the rest."""
    low, high = (torch.fft.fftshift(torch.fft.fftn(x, dim=_AXES), dim=_AXES) for x in (low, high))
    mixed = low * kept + high * (1 - kept)
    return torch.fft.ifftn(torch.fft.ifftshift(mixed, dim=_AXES), dim=_AXES).real


def denoise_repeatedly(
    settings: FreeInit,
    run: Callable[[Tensor, Tensor], Tensor],
    scheduler: Scheduler,
    noise: Tensor,
    generators: Sequence[torch.Generator],
    num_steps: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Tensor:
    """The loop around the denoising loop.

    Works on noise of unit variance, so it is the same for every solver; diffusers', which noises in the solver's own
    scale, agrees with it where that scale is the same (DDIM and the like).

    Args:
        settings: how to repeat.
        run: (latents at the scheduler's first noise level, timesteps) -> denoised latents, for example a call of
            `denoise`.
        scheduler: its timesteps are set for each pass.
        noise: `[b, c, f, h, w]` of unit variance; what the first pass starts from.
        generators: one for each video; fresh noise of every further pass comes from them.
        num_steps: steps of a whole pass.
        stopped: asked after every pass; True ends with what there is.

    Returns:
        The latents of the last pass.
    """
    latents = noise
    for index in range(settings.passes):
        start = noise if index == 0 else _renewed(settings, scheduler, latents, noise, generators)
        set_timesteps(scheduler, settings.steps_of(index, num_steps))
        latents = run(start * float(scheduler.init_noise_sigma), scheduler.timesteps)
        if stopped():
            break
    return latents


def _renewed(
    settings: FreeInit, scheduler: Scheduler, latents: Tensor, noise: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    signal = float(scheduler.alphas_cumprod[-1])
    noisy = latents.float() * signal**0.5 + noise.float() * (1 - signal) ** 0.5
    _, channels, *size = latents.shape
    fresh = draw_noise(generators, LatentShape(channels, *size)).to(noisy)
    return mix_frequencies(noisy, fresh, low_pass(settings, *size).to(noisy)).to(noise.dtype)
