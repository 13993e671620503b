"""From noise to latents: seeds, schedulers, guidance, windows, and the one denoising loop. No network in here."""

from muybridge.request.sampling import FreeInit, WindowSettings
from muybridge.sampling.free_init import check_levels, denoise_repeatedly
from muybridge.sampling.free_noise import free_noise
from muybridge.sampling.guidance import Guidance
from muybridge.sampling.loop import Denoiser, StepReport, StopSampling, denoise
from muybridge.sampling.noise import draw_noise, video_generators
from muybridge.sampling.schedulers import (
    SAMPLERS,
    Sampler,
    Scheduler,
    find_sampler,
    make_plain_scheduler,
    make_scheduler,
    scheduler_names,
    set_timesteps,
)
from muybridge.sampling.windows import ContextWindows, Window, plan_windows

__all__ = [
    "SAMPLERS",
    "ContextWindows",
    "Denoiser",
    "FreeInit",
    "Guidance",
    "Sampler",
    "Scheduler",
    "StepReport",
    "StopSampling",
    "Window",
    "WindowSettings",
    "check_levels",
    "denoise",
    "denoise_repeatedly",
    "draw_noise",
    "find_sampler",
    "free_noise",
    "make_plain_scheduler",
    "make_scheduler",
    "plan_windows",
    "scheduler_names",
    "set_timesteps",
    "video_generators",
]
