"""What a consistency model is trained against: itself, a step of its teacher further on the way from noise.

Sources: Luo et al., "LCM-LoRA" (2023), as diffusers' and EasyAnimate's scripts have it; for several phases Wang et al.,
"Phased Consistency Model" (2024), section 4; where the teacher goes all of a phase, Salimans and Ho, "Progressive
Distillation" (2022), section 3, in one stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from muybridge.errors import ConfigError

_SIGMA_DATA = 0.5
_TIMESTEP_SCALING = 10.0
"""The `lcm` scheduler's, so that a student is run as it was trained."""


Target = Literal["consistency", "teacher"]


@dataclass(frozen=True)
class Distilling:
    """How a teacher is distilled.

    Attributes:
        solver_steps: DDIM steps from noise to nothing, of which the student learns to skip all but a few.
        guidance: scales of classifier-free guidance between which the teacher's is drawn, and which the student then
            needs no more.
        huber: of a pseudo-Huber loss; None for the mean square.
        phases: in which the way is cut. With 1 a student says where the way ends, from anywhere on it, and sampling
            goes back into fresh noise after each step ("lcm"). With more it says where the phase ends that it is in,
            and sampling is DDIM of as many steps, without fresh noise: easier to learn, and for that many steps only.
        target: "consistency" for what the student itself says a step of the solver further on, from anywhere; "teacher"
            for where the teacher arrives by all steps of a phase, from its beginning, where alone a student of
            several phases is asked: each training step takes more calls of the teacher, and far fewer are needed.
    """

    solver_steps: int = 50
    guidance: tuple[float, float] = (6.0, 16.0)
    huber: float | None = None
    phases: int = 1
    target: Target = "consistency"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: a value out of range.
        """
        low, high = self.guidance
        if self.solver_steps < 2 or not 1 <= low <= high < float("inf"):
            raise ConfigError(
                "Distilling needs solver_steps of at least 2, and guidance as two scales of at least 1, the smaller "
                f"first; given {self.solver_steps} and {list(self.guidance)}."
            )
        if self.phases < 1 or self.solver_steps % self.phases or self.phases == self.solver_steps:
            raise ConfigError(
                "Distilling in phases needs solver_steps that are a multiple of them, at least twice as many; given "
                f"{self.phases} phases and {self.solver_steps} solver_steps."
            )
        if self.target == "teacher" and self.phases == 1:
            raise ConfigError(
                "A student of one phase is asked anywhere on the way, so its target is its own consistency; give "
                "phases, or leave target out."
            )


@dataclass(frozen=True)
class Stretch:
    """A step on the way from noise, one for each sample.

    Attributes:
        noisy: latents `[b, c, (f,) h, w]` where it begins.
        start: timestep of that, int64 `[b]`.
        end: timestep where it ends, likewise.
        signal_at_end: share of the variance there that is signal, float64 `[b]`.
        guidance: scale of the teacher's, `[b]`.
        signal_at_goal: as `signal_at_end`, where the phase ends.
        index: of the solver's step, int64 `[b]` on the CPU, counted from the least noise on.
    """

    noisy: Tensor
    start: Tensor
    end: Tensor
    signal_at_end: Tensor
    guidance: Tensor
    signal_at_goal: Tensor
    index: Tensor


class ConsistencyObjective:
    """Stretches, the teacher's steps over them, and how the student is judged."""

    def __init__(self, scheduler: DDIMScheduler, settings: Distilling | None = None) -> None:
        """Noise levels and prediction type are the scheduler's.

        Raises:
            ConfigError: the prediction type is neither "epsilon" nor "v_prediction", more solver steps than levels, or
                phases that do not divide the levels.
        """
        prediction = scheduler.config["prediction_type"]
        if prediction not in ("epsilon", "v_prediction"):
            raise ConfigError(f"Distilling knows the prediction types epsilon and v_prediction; given {prediction!r}.")
        self.settings = settings or Distilling()
        self._velocity = prediction == "v_prediction"
        self.alphas = scheduler.alphas_cumprod
        levels = scheduler.config["num_train_timesteps"]
        if self.settings.solver_steps > levels:
            raise ConfigError(f"This model has {levels} noise levels; given {self.settings.solver_steps} solver_steps.")
        self.stride = levels // self.settings.solver_steps
        self._steps = torch.arange(1, self.settings.solver_steps + 1) * self.stride - 1
        before = torch.cat((torch.zeros(1, dtype=torch.long), self._steps[:-1]))
        self._signals_at_end = self.alphas[before].double()
        if self.settings.phases > 1:
            if levels % self.settings.solver_steps:
                raise ConfigError(
                    f"Phases begin where DDIM's steps do, so solver_steps must divide the {levels} noise levels; given "
                    f"{self.settings.solver_steps}."
                )
            self._signals_at_end[0] = scheduler.final_alpha_cumprod
        self._in_phase = in_phase = self.settings.solver_steps // self.settings.phases
        first = torch.arange(self.settings.solver_steps) // in_phase * in_phase
        self._signals_at_goal = self._signals_at_end[first]

    @property
    def teacher_steps(self) -> int:
        """Steps of the solver that the teacher goes before the student is compared with it."""
        return self._in_phase if self.settings.target == "teacher" else 1

    def draw(self, latents: Tensor, generator: torch.Generator) -> Stretch:
        """A stretch for each sample, drawn on the CPU."""
        count = len(latents)
        if self.settings.target == "teacher":
            index = (torch.randint(self.settings.phases, (count,), generator=generator) + 1) * self._in_phase - 1
        else:
            index = torch.randint(len(self._steps), (count,), generator=generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        low, high = self.settings.guidance
        guidance = (low + (high - low) * torch.rand(count, generator=generator)).to(latents)
        return self.stretch(latents, noise, index, guidance)

    def stretch(self, latents: Tensor, noise: Tensor, index: Tensor, guidance: Tensor) -> Stretch:
        """Of given draws; `index` counts the solver's steps from the least noise on."""
        signal, rest = self._levels(self._steps[index], latents)
        return self._from(signal * latents + rest * noise, index, guidance)

    def onward(self, stretch: Stretch, further: Tensor) -> Stretch:
        """The next step of the solver, from where the teacher arrived `further` by the last."""
        return self._from(further.to(stretch.noisy), stretch.index - 1, stretch.guidance)

    def _from(self, noisy: Tensor, index: Tensor, guidance: Tensor) -> Stretch:
        start = self._steps[index]
        end = (start - self.stride).clamp(min=0)
        device = noisy.device
        at_end, at_goal = (each[index].to(device) for each in (self._signals_at_end, self._signals_at_goal))
        return Stretch(noisy, start.to(device), end.to(device), at_end, guidance, at_goal, index)

    def step(self, stretch: Stretch, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """Where the teacher, which said this with the caption and without, arrives by one step of DDIM."""
        scale = _expand(stretch.guidance, conditional)
        output = unconditional + scale * (conditional - unconditional)
        clean, noise = self._clean_and_noise(output, stretch.start, stretch.noisy)
        signal = _expand(stretch.signal_at_end, clean)
        return signal.sqrt() * clean.double() + (1 - signal).sqrt() * noise.double()

    def said(self, stretch: Stretch, output: Tensor) -> Tensor:
        """What a student's output at the beginning of the stretch says of the end of the way, or of its phase."""
        if self.settings.phases == 1:
            return self.consistent(output, stretch.start, stretch.noisy)
        return self._at_goal(stretch, *self._clean_and_noise(output, stretch.start, stretch.noisy))

    def target(self, stretch: Stretch, output: Tensor, further: Tensor) -> Tensor:
        """The same of its output at the end of the stretch, where the teacher arrived `further`."""
        if self.settings.phases == 1:
            return self.consistent(output, stretch.end, further)
        meant = self._at_goal(stretch, *self._clean_and_noise(output, stretch.end, further))
        return torch.where(_expand(stretch.signal_at_end == stretch.signal_at_goal, further), further, meant)

    def consistent(self, output: Tensor, timesteps: Tensor, noisy: Tensor) -> Tensor:
        """The clean latents that a student means; at the least noise they are what it was shown."""
        clean, _ = self._clean_and_noise(output, timesteps, noisy)
        scaled = (timesteps * _TIMESTEP_SCALING).to(clean.dtype)
        kept = _SIGMA_DATA**2 / (scaled.square() + _SIGMA_DATA**2)
        made = scaled / (scaled.square() + _SIGMA_DATA**2).sqrt()
        return _expand(kept, clean) * noisy + _expand(made, clean) * clean

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """How far the student is from itself, a step further on."""
        difference = prediction.float() - target.float()
        if self.settings.huber is None:
            return difference.square().mean()
        return ((difference.square() + self.settings.huber**2).sqrt() - self.settings.huber).mean()

    def _at_goal(self, stretch: Stretch, clean: Tensor, noise: Tensor) -> Tensor:
        signal = _expand(stretch.signal_at_goal, clean)
        return signal.sqrt() * clean.double() + (1 - signal).sqrt() * noise.double()

    def _clean_and_noise(self, output: Tensor, timesteps: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
        signal, rest = self._levels(timesteps.cpu(), noisy)
        if self._velocity:
            return signal * noisy - rest * output, signal * output + rest * noisy
        return (noisy - rest * output) / signal, output

    def _levels(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = _expand(self.alphas[timesteps].to(like), like)
        return alphas.sqrt(), (1 - alphas).sqrt()


def _expand(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.ndim - 1))
