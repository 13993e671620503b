"""Schedulers by name, with AnimateDiff's noise schedule. They are diffusers'; only the settings are chosen here."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import torch
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
from muybridge.types import SettingsDict, SettingsView


class Scheduler(Protocol):
    """What this package uses of a diffusers scheduler."""

    config: SettingsView
    timesteps: Tensor
    init_noise_sigma: Tensor | float
    alphas_cumprod: Tensor

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the noise levels of a run."""

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Latents as the network wants them."""
        ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Samples at the noise level of `timesteps [b]`."""
        ...

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, *, return_dict: Literal[False], **options: Any
    ) -> tuple[Tensor, ...]:
        """Latents after one step."""
        ...


ANIMATEDIFF_BETAS: SettingsDict = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
}
"""AnimateDiff on Stable Diffusion 1.5: linear, not scaled linear. Source: `configs/inference/inference-v*.yaml`."""

EASYANIMATE_BETAS: SettingsDict = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""EasyAnimate V2 and V3. Source: `config/easyanimate_video_slicevae_motion_module_v3.yaml`."""

_LEADING: SettingsDict = {"timestep_spacing": "leading", "steps_offset": 1}


@dataclass(frozen=True)
class Sampler:
    """A solver by name.

    Attributes:
        name: what `make_scheduler` knows it as.
        title: its usual name.
        description: what it is good for, in one sentence.
        steps: a good number of denoising steps.
        guidance_scale: a good strength of guidance; 1 is none.
        scheduler_class: of diffusers.
        settings: its own, where a model says nothing else.
        fixed: its own, whatever a model says.
        predictions: what networks may predict that it can run.
    """

    name: str
    title: str
    description: str
    steps: int
    guidance_scale: float
    scheduler_class: type[ConfigMixin]
    settings: SettingsView = field(default_factory=dict)
    fixed: SettingsView = field(default_factory=dict)
    predictions: tuple[str, ...] = ("epsilon", "v_prediction", "sample")

    @property
    def setting_names(self) -> set[str]:
        """All settings that its class has."""
        return set(self.scheduler_class._get_init_keys(self.scheduler_class))


SAMPLERS: tuple[Sampler, ...] = (
    Sampler(
        "ddim",
        "DDIM",
        "AnimateDiff's own; plain and deterministic.",
        25,
        7.5,
        DDIMScheduler,
        {**_LEADING, "clip_sample": False, "set_alpha_to_one": True},
    ),
    Sampler(
        "euler", "Euler", "As fast as DDIM, in the scale of noise levels.", 25, 7.5, EulerDiscreteScheduler, _LEADING
    ),
    Sampler(
        "euler-a",
        "Euler ancestral",
        "Draws fresh noise in every step: livelier, and never settles.",
        25,
        7.5,
        EulerAncestralDiscreteScheduler,
        _LEADING,
        predictions=("epsilon", "v_prediction"),
    ),
    Sampler(
        "euler-trailing",
        "Euler, trailing",
        "For AnimateDiff-Lightning: starts at the noisiest level; steps as its file was distilled for (1, 2, 4, 8).",
        4,
        1.0,
        EulerDiscreteScheduler,
        {"steps_offset": 1},
        {"timestep_spacing": "trailing"},
    ),
    Sampler(
        "dpm++2m",
        "DPM++ 2M",
        "Second order: as good in fewer steps.",
        20,
        7.5,
        DPMSolverMultistepScheduler,
        _LEADING,
    ),
    Sampler(
        "dpm++2m-karras",
        "DPM++ 2M Karras",
        "The same, with more of its steps at low noise.",
        20,
        7.5,
        DPMSolverMultistepScheduler,
        _LEADING,
        {"use_karras_sigmas": True},
    ),
    Sampler(
        "pndm",
        "PNDM",
        "Stable Diffusion's own; takes its second step twice.",
        25,
        7.5,
        PNDMScheduler,
        _LEADING,
        {"skip_prk_steps": True},
        predictions=("epsilon", "v_prediction"),
    ),
    Sampler(
        "unipc",
        "UniPC",
        "Corrects each step by the next; good in few steps.",
        15,
        7.5,
        UniPCMultistepScheduler,
        _LEADING,
    ),
    Sampler(
        "lcm",
        "LCM",
        "For AnimateLCM and other consistency models: 4 to 8 steps, guidance 1 to 2.",
        6,
        2.0,
        LCMScheduler,
    ),
)
"""All samplers. Steps and guidance are for motion modules that are not distilled, save where a description says so."""
_OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
)
"""Settings that belong to what a model was trained with, which another solver must take over."""
_WHAT_A_SAMPLER_IS = ("use_karras_sigmas", "timestep_spacing")


def scheduler_names() -> list[str]:
    """The names `make_scheduler` knows."""
    return sorted(sampler.name for sampler in SAMPLERS)


def find_sampler(name: str) -> Sampler:
    """A sampler by name.

    Raises:
        ConfigError: unknown name (lists the known ones).
    """
    for sampler in SAMPLERS:
        if sampler.name == name:
            return sampler
    raise ConfigError(f"Unknown scheduler {name!r}. Known: {', '.join(scheduler_names())}.")


def make_scheduler(name: str, model_scheduler: ConfigMixin | Scheduler | None = None) -> Scheduler:
    """A scheduler by name.

    Args:
        name: one of `scheduler_names()`.
        model_scheduler: the scheduler a model came with; its noise schedule, prediction type and spacing are kept, save
            what the sampler is made of (the spacing of "euler-trailing"). Without it, AnimateDiff's settings for Stable
            Diffusion 1.5 are used.

    Raises:
        ConfigError: unknown name (lists the known ones), or a solver that cannot start from pure noise, or run a model
            that predicts what this one does.
    """
    sampler = find_sampler(name)
    if model_scheduler is None:
        return _make(sampler, {**ANIMATEDIFF_BETAS, **sampler.settings, **sampler.fixed})
    own = {key: value for key, value in dict(model_scheduler.config).items() if key in _OF_THE_MODEL}
    return _make(sampler, {**sampler.settings, **own, **sampler.fixed})


def make_plain_scheduler(name: str, schedule: SettingsView) -> Scheduler:
    """A scheduler by name, of the given noise schedule, that is otherwise as diffusers makes it.

    EasyAnimate runs this way: its DDIM clips the predicted sample and starts below the top noise level, for example.

    Raises:
        ConfigError: as of `make_scheduler`.
    """
    sampler = find_sampler(name)
    kept = {key: value for key, value in sampler.fixed.items() if key in _WHAT_A_SAMPLER_IS}
    return _make(sampler, {**schedule, **kept})


def with_settings(scheduler: Scheduler, settings: SettingsView) -> Scheduler:
    """The same solver with some settings of the model changed, such as what it predicts.

    Raises:
        ConfigError: the solver cannot run such a model.
    """
    kind = cast("type[ConfigMixin]", type(scheduler))
    own = next((each for each in SAMPLERS if each.scheduler_class is kind), None)
    changed = {**dict(scheduler.config), **settings}
    if own is not None:
        _require_able(own, changed)
    with _tensors_to_numpy():
        return cast("Scheduler", kind.from_config(changed))


def set_timesteps(scheduler: Scheduler, num_steps: int) -> Tensor:
    """Choose the noise levels of a run; returns them, on the CPU.

    Raises:
        ConfigError: a number of steps that the solver cannot make.
    """
    most = scheduler.config["num_train_timesteps"]
    if not 1 <= num_steps <= most:
        raise ConfigError(f"The number of steps must be from 1 to {most}; given {num_steps}.")
    try:
        with _tensors_to_numpy():
            scheduler.set_timesteps(num_steps)
    except ValueError as error:
        raise ConfigError(f"{type(scheduler).__name__} cannot make {num_steps} steps: {error}") from error
    return scheduler.timesteps


def _make(sampler: Sampler, settings: SettingsView) -> Scheduler:
    _require_able(sampler, settings)
    if settings.get("rescale_betas_zero_snr"):
        # Other spacings begin below the last noise level, and only there is nothing but noise.
        settings = {**settings, "timestep_spacing": "trailing"}
    with _tensors_to_numpy():
        return cast(
            "Scheduler", sampler.scheduler_class(**{k: v for k, v in settings.items() if k in sampler.setting_names})
        )


def _require_able(sampler: Sampler, settings: SettingsView) -> None:
    predicts = settings.get("prediction_type", "epsilon")
    if predicts not in sampler.predictions:
        able = [each.name for each in SAMPLERS if predicts in each.predictions]
        raise ConfigError(
            f"Scheduler {sampler.name!r} cannot run a model that predicts {predicts}. Use one of {', '.join(able)}."
        )
    if settings.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in sampler.setting_names:
        able = [each.name for each in SAMPLERS if "rescale_betas_zero_snr" in each.setting_names]
        raise ConfigError(
            f"Scheduler {sampler.name!r} cannot start from zero signal, which this model was trained for. Use one of "
            f"{', '.join(able)}."
        )


@contextlib.contextmanager
def _tensors_to_numpy() -> Iterator[None]:
    """Quiet about diffusers' schedulers handing tensors to numpy in a way that numpy will give up."""
    with warnings.catch_warnings():
        message = re.escape("__array__ implementation doesn't accept a copy keyword")
        warnings.filterwarnings("ignore", message, DeprecationWarning, r"diffusers\.schedulers\.")
        yield
