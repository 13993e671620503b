"""What every pipeline does the same way: solver, loop, interruption, and results in the form that was asked for."""

from __future__ import annotations

import inspect
import math
import operator
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

from muybridge.conditioning import EncodedPrompts
from muybridge.debug import first_anomalous_module
from muybridge.errors import ConfigError, ShapeError
from muybridge.pipelines.decoding import to_uint8
from muybridge.pipelines.lora_tags import LoraTagHost
from muybridge.sampling import Guidance, Scheduler, StepReport, StopSampling, denoise, make_scheduler, set_timesteps
from muybridge.version import __version__
from muybridge.video import Video
from muybridge.video.value import MAX_FPS, MIN_FPS

OutputType = Literal["video", "pil", "np", "pt", "latent"]
StepCallback = Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]
Decode = Callable[[Tensor, int], Iterator[Tensor]]
"""From latents `[c, f, h, w]` of one video, and its number in the batch, to its frames a few at a time.

Frames are `float32 [n, 3, h, w]` in [0, 1], on the CPU.
"""
OUTPUT_TYPES = ("video", "pil", "np", "pt", "latent")


@dataclass(frozen=True)
class CommonSettings:
    """What every call has, with the model's defaults filled in and checked."""

    steps: int
    guidance_scale: float
    seed: int
    num_videos_per_prompt: int
    scheduler: str | None
    eta: float
    motion_strength: float | Sequence[float]
    fps: float
    output_type: OutputType
    batched_guidance: bool
    callback: StepCallback | None


class VideoPipeline(LoraTagHost):
    """Base of the pipelines; a family adds its parts, its conditions and its VAE."""

    model_name: str | None = None
    _remembered: Mapping[str, Any] | None = None
    _loaded_with: Mapping[str, str | None] = dict.fromkeys(
        ("motion_adapter", "motion_variant", "parts_from", "vae", "prediction")
    )
    _interrupt = False

    def interrupt(self) -> None:
        """Stop the running call after the present step; what there is then is decoded and returned."""
        self._interrupt = True

    def remember_parts(self, model_name: str | None, loaded_with: Mapping[str, str | None] | None = None) -> None:
        """Say which model this is as it stands; videos made after parts were replaced say so.

        Args:
            model_name: what it is loaded by; None where that would give another.
            loaded_with: arguments of `load_pipeline` that it was loaded with besides; videos record them.
        """
        self.model_name = model_name
        self._loaded_with = {**self._loaded_with, **(loaded_with or {})}
        self._remembered = self._present_parts()

    def _present_parts(self) -> dict[str, Any]:
        network: Any = self.backbone
        return {**self.components, "motion_adapter": getattr(network, "motion_adapter", None)}

    def _changed_parts(self) -> list[str]:
        before = self._remembered or {}
        found = [f"another {name}" for name, part in self._present_parts().items() if part is not before.get(name)]
        adapter: Any = self._present_parts()["motion_adapter"]
        if adapter is not None and any(strength != 1 for strength in adapter.strengths.values()):
            found.append("motion strengths by site")
        return found if self.model_name is not None else []

    @property
    def backbone(self) -> nn.Module:
        """The denoising network."""
        raise NotImplementedError

    def make_solver(self, name: str) -> Scheduler:
        """Another solver than the model's own, for the noise levels it was trained on."""
        return make_scheduler(name, self.scheduler)

    def _common(
        self, steps: int | None, guidance_scale: float | None, seed: int | None, **others: Any
    ) -> CommonSettings:
        common = CommonSettings(
            steps=self.config["default_steps"] if steps is None else steps,
            guidance_scale=self.config["default_guidance"] if guidance_scale is None else guidance_scale,
            seed=secrets.randbelow(2**31) if seed is None else operator.index(seed),
            **others,
        )
        count, strength = common.num_videos_per_prompt, common.motion_strength
        strengths = strength if isinstance(strength, Sequence) else [strength]
        output, fps = common.output_type, common.fps
        require(
            {
                f"num_inference_steps must be at least 1; given {common.steps}.": common.steps >= 1,
                f"guidance_scale must be between 0 and 1000; given {common.guidance_scale}.": (
                    0 <= common.guidance_scale < 1000
                ),
                f"num_videos_per_prompt must be at least 1; given {count}.": count >= 1,
                f"seed must be between 0 and 2**63 - 1; given {common.seed}.": 0 <= common.seed < 2**63,
                f"eta must be between 0 and 1; given {common.eta}.": 0 <= common.eta <= 1,
                f"motion_strength must be a finite number; given {strength}.": all(map(math.isfinite, strengths)),
                f"fps must be between {MIN_FPS:g} and {MAX_FPS:g}; given {fps}.": MIN_FPS <= fps <= MAX_FPS,
                f"output_type must be one of {OUTPUT_TYPES}; given {output!r}.": output in OUTPUT_TYPES,
            }
        )
        return common

    def _solver(self, name: str | None, steps: int) -> Scheduler:
        solver: Scheduler = self.scheduler if name is None else self.make_solver(name)
        set_timesteps(solver, steps)
        return solver

    def _start(self, noise: Tensor, latents: Tensor | None) -> Tensor:
        # The noise is drawn even where it is replaced, so that what a solver draws later stays the same.
        if latents is not None and latents.shape != noise.shape:
            raise ShapeError(f"latents must be {list(noise.shape)} for this call; given {list(latents.shape)}.")
        return (noise if latents is None else latents).to(self._execution_device, torch.float32)

    def _denoise(
        self,
        guidance: Guidance,
        solver: Scheduler,
        start: Tensor,
        options: dict[str, Any],
        callback: StepCallback | None,
        timesteps: Tensor | None = None,
        before_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        timesteps = solver.timesteps if timesteps is None else timesteps

        def diagnose(latents: Tensor, timestep: Tensor) -> str:
            return first_anomalous_module(self.backbone, lambda: guidance(latents, timestep)) or "the scheduler"

        bar: Any = self.progress_bar  # pyright: ignore[reportAttributeAccessIssue]  # made by a mixin at run time
        with bar(total=len(timesteps)) as bar:

            def on_step(report: StepReport) -> Tensor | None:
                bar.update()
                replaced = None
                if callback is not None:
                    replaced = (callback(self, report.index, report.timestep, {"latents": report.latents}) or {}).get(
                        "latents"
                    )
                if self._interrupt:
                    raise StopSampling(replaced)
                return replaced

            return denoise(guidance, solver, start, timesteps, on_step, options, diagnose, before_step)

    def _request(self, common: CommonSettings, own: Mapping[str, Any], unrecorded: Mapping[str, Any]) -> dict[str, Any]:
        """What made the videos, as far as plain values can say it; names what they cannot."""
        network: Any = self.backbone
        beside = {**unrecorded, "how its LoRAs were read": self.has_unrecorded_lora or None}
        return {
            "model": self.model_name,
            **self._loaded_with,
            **own,
            "num_inference_steps": common.steps,
            "guidance_scale": common.guidance_scale,
            "scheduler": common.scheduler,
            "eta": common.eta,
            "motion_strength": common.motion_strength,
            "fps": common.fps,
            "dtype": str(network.dtype).removeprefix("torch."),
            "versions": {"muybridge": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
            "interrupted": self._interrupt,
            "lora": self.lora_settings,
            "unrecorded": [*(name for name, value in beside.items() if value is not None), *self._changed_parts()],
        }

    def _finish(self, latents: Tensor, common: CommonSettings, request: dict[str, Any], decode: Decode) -> Any:
        if common.output_type == "latent":
            self.maybe_free_model_hooks()
            return latents
        if common.output_type in ("pt", "np"):
            pixels = torch.stack([torch.cat(list(decode(each, index))) for index, each in enumerate(latents)])
            self.maybe_free_model_hooks()
            return pixels if common.output_type == "pt" else pixels.movedim(2, -1).numpy()
        frames = [
            np.concatenate([to_uint8(piece) for piece in decode(each, index)]) for index, each in enumerate(latents)
        ]
        self.maybe_free_model_hooks()
        prompts, per_prompt = request["prompt"], common.num_videos_per_prompt
        videos = []
        for index, each in enumerate(frames):
            own = dict(request, seed=common.seed + index, prompt=prompts[index // per_prompt] if prompts else None)
            negative = request["negative_prompt"]
            if negative is not None and not isinstance(negative, str):
                own["negative_prompt"] = negative[index // per_prompt % len(negative)]
            videos.append(Video(each, fps=common.fps, request=own))
        return [video.to_pil() for video in videos] if common.output_type == "pil" else videos


def timesteps_of(solver: Scheduler, share: float) -> Tensor:
    """The last `share` (above 0, at most 1) of a solver's timesteps, at least one; counted as diffusers does.

    Raises:
        ConfigError: the solver cannot begin in the middle.
    """
    count = len(solver.timesteps)
    start = count - max(1, min(int(count * share), count))
    if start and type(solver).__name__ == "PNDMScheduler":
        raise ConfigError("The scheduler 'pndm' cannot begin in the middle; use another, or strength 1.")
    return solver.timesteps[start:]


def require(conditions: Mapping[str, bool]) -> None:
    """Raise a `ConfigError` with the first message whose condition does not hold."""
    for message, holds in conditions.items():
        if not holds:
            raise ConfigError(message)


def prompt_list(prompt: str | Sequence[str] | None) -> list[str] | None:
    """One prompt as a list of one."""
    return [prompt] if isinstance(prompt, str) else None if prompt is None else list(prompt)


def check_prompts(
    prompts: list[str] | None,
    negative: str | Sequence[str] | None,
    given: EncodedPrompts | None,
    negative_embeds: Tensor | None,
    guided: bool,
) -> None:
    """Whether prompts or text states are given, not both, and negatives exactly where they have an effect.

    Raises:
        ConfigError: otherwise.
        ShapeError: negative text states unlike the positive ones.
    """
    if (prompts is None) == (given is None):
        raise ConfigError("Give either prompt or prompt_embeds; not both, and not neither.")
    if negative if prompts is None else negative_embeds is not None:
        raise ConfigError("negative_prompt goes with prompt, and negative_prompt_embeds with prompt_embeds.")
    if not guided and (negative or negative_embeds is not None):
        raise ConfigError("A negative prompt has no effect at guidance_scale 1; leave it out, or raise the scale.")
    if guided and given is not None and (negative_embeds is None or negative_embeds.shape != given.positive.shape):
        raise ShapeError(
            f"With guidance, negative_prompt_embeds must be {list(given.positive.shape)} like prompt_embeds; or set "
            "guidance_scale to 1."
        )


def step_options(solver: Scheduler, eta: float, generators: list[torch.Generator]) -> dict[str, Any]:
    """What a solver's steps are told besides predictions.

    Raises:
        ConfigError: an `eta` for a solver that has none.
    """
    accepted = inspect.signature(solver.step).parameters
    options: dict[str, Any] = {}
    if "generator" in accepted:
        options["generator"] = generators
    if "eta" in accepted:
        options["eta"] = eta
    elif eta:
        raise ConfigError(f"{type(solver).__name__} has no eta; leave it 0 or use the scheduler 'ddim'.")
    return options
