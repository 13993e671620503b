"""Schedulers by name, with AnimateDiff's noise schedule. They are diffusers'; only the settings are chosen here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from diffusers import (
    ConfigMixin,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from muybridge.errors import ConfigError


class Scheduler(Protocol):
    """What this package uses of a diffusers scheduler."""

    config: Mapping[str, Any]
    timesteps: Tensor
    init_noise_sigma: Any

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the noise levels of a run."""

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """Latents as the network wants them."""
        ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Samples at the noise level of `timesteps [b]`."""
        ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
        """Latents after one step."""
        ...


ANIMATEDIFF_BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
}
"""AnimateDiff on Stable Diffusion 1.5: linear, not scaled linear. Source: `configs/inference/inference-v*.yaml`."""

EASYANIMATE_BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""EasyAnimate V2 and V3. Source: `config/easyanimate_video_slicevae_motion_module_v3.yaml`."""

_LEADING: dict[str, Any] = {"timestep_spacing": "leading", "steps_offset": 1}
_SCHEDULERS: dict[str, tuple[type, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {**_LEADING, "clip_sample": False, "set_alpha_to_one": True}),
    "euler": (EulerDiscreteScheduler, _LEADING),
    "euler-a": (EulerAncestralDiscreteScheduler, _LEADING),
    "dpm++2m": (DPMSolverMultistepScheduler, _LEADING),
    "dpm++2m-karras": (DPMSolverMultistepScheduler, {**_LEADING, "use_karras_sigmas": True}),
    "pndm": (PNDMScheduler, {**_LEADING, "skip_prk_steps": True}),
    "unipc": (UniPCMultistepScheduler, _LEADING),
    "lcm": (LCMScheduler, {}),
}
_OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
)
"""Settings that belong to what a model was trained with, which another solver must take over."""


def scheduler_names() -> list[str]:
    """The names `make_scheduler` knows."""
    return sorted(_SCHEDULERS)


def make_scheduler(name: str, model_scheduler: ConfigMixin | Scheduler | None = None) -> Scheduler:
    """A scheduler by name.

    Args:
        name: one of `scheduler_names()`.
        model_scheduler: the scheduler a model came with; its noise schedule, prediction type and spacing are kept.
            Without it, AnimateDiff's settings for Stable Diffusion 1.5 are used.

    Raises:
        ConfigError: unknown name (lists the known ones), or a solver that cannot start from pure noise where the
            model was trained to.
    """
    if name not in _SCHEDULERS:
        raise ConfigError(f"Unknown scheduler {name!r}. Known: {', '.join(scheduler_names())}.")
    scheduler_class, settings = _SCHEDULERS[name]
    if model_scheduler is None:
        return scheduler_class(**{**ANIMATEDIFF_BETAS, **settings})
    own = {key: value for key, value in dict(model_scheduler.config).items() if key in _OF_THE_MODEL}
    accepted = _init_names(scheduler_class)
    if own.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in accepted:
        raise ConfigError(
            f"Scheduler {name!r} cannot start from zero signal, which this model was trained for. Use one of "
            f"{', '.join(n for n, (c, _) in _SCHEDULERS.items() if 'rescale_betas_zero_snr' in _init_names(c))}."
        )
    merged = {**settings, **own}
    return scheduler_class(**{key: value for key, value in merged.items() if key in accepted})


def make_plain_scheduler(name: str, schedule: Mapping[str, Any]) -> Scheduler:
    """A scheduler by name, of the given noise schedule, that is otherwise as diffusers makes it.

    EasyAnimate runs this way: its DDIM clips the predicted sample and starts below the top noise level, for example.

    Raises:
        ConfigError: unknown name (lists the known ones).
    """
    if name not in _SCHEDULERS:
        raise ConfigError(f"Unknown scheduler {name!r}. Known: {', '.join(scheduler_names())}.")
    scheduler_class, settings = _SCHEDULERS[name]
    accepted = _init_names(scheduler_class)
    karras = {key: value for key, value in settings.items() if key == "use_karras_sigmas"}
    return scheduler_class(**karras, **{key: value for key, value in schedule.items() if key in accepted})


def _init_names(scheduler_class: Any) -> set[str]:
    return set(scheduler_class._get_init_keys(scheduler_class))
