"""From noise to latents: seeds, schedulers, guidance, and the one denoising loop. No network in here."""

from muybridge.sampling.guidance import Guidance
from muybridge.sampling.loop import Denoiser, StepReport, denoise
from muybridge.sampling.noise import draw_noise, video_generators
from muybridge.sampling.schedulers import Scheduler, make_plain_scheduler, make_scheduler, scheduler_names

__all__ = [
    "Denoiser",
    "Guidance",
    "Scheduler",
    "StepReport",
    "denoise",
    "draw_noise",
    "make_plain_scheduler",
    "make_scheduler",
    "scheduler_names",
    "video_generators",
]
