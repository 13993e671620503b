"""A plan, carried out: from noise to latents, whatever the family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from muybridge.conditioning.known import mark_known
from muybridge.conditioning.pinned import PinnedVideo, nothing_pinned
from muybridge.conditioning.pinned_latents import Kept, encode_pinned, kept_of
from muybridge.conditioning.text import EncodedPrompts
from muybridge.conditioning.travel import travelled_prompts
from muybridge.debug import first_anomalous_module
from muybridge.errors import NonFiniteError
from muybridge.pipelines.base import Network, PipelineBase, Told, step_options
from muybridge.pipelines.plan import Plan
from muybridge.pipelines.progress import OnProgress, Progress, tell_nobody
from muybridge.request import FreeInit
from muybridge.sampling import (
    ContextWindows,
    Guidance,
    StepReport,
    StopSampling,
    denoise,
    denoise_repeatedly,
    draw_noise,
    free_noise,
    video_generators,
)
from muybridge.types import SettingsDict


class Run:
    """A plan, carried out up to latents."""

    def __init__(self, pipeline: PipelineBase, plan: Plan, tell: OnProgress = tell_nobody) -> None:
        """Of a pipeline; `tell` is told of every step."""
        self.pipeline = pipeline
        self.tell = tell
        self.plan = plan
        self.task = plan.task
        self.sampling = plan.request.sampling

    def latents(self) -> Tensor:
        """`[b, c, f, h, w]`."""
        pipeline, task, prepared = self.pipeline, self.task, self.plan.prepared
        text = self._text()
        generators = video_generators(self.sampling.seed or 0, task.count)
        noise = self._noise(generators)
        pinned, known = self._pinned(), prepared.known
        takes_pictures = "picture channels" in pipeline.can.takes
        share = len(task.timesteps) / len(self.plan.solver.timesteps)
        video, inpaint = None, None
        if pinned is not None:
            given = encode_pinned(
                pipeline.codec,
                pinned,
                pipeline.encoding_device,
                generators if self.sampling.profile == "reference" else (),
                takes_pictures,
                prepared.starts_from and (share < 1.0 or pipeline.can.source_always),
                known,
            )
            video, inpaint = given.video, given.inpaint
        kept = None
        if pinned is not None:
            kept = kept_of(pipeline.codec, pinned, pipeline.encoding_device, known, noise, takes_pictures)
        told = Told(
            task, text, replace(prepared, pinned=pinned), inpaint, self._settings(), self.sampling.clip_apply_ratio
        )
        network = pipeline._network(told)
        options = step_options(self.plan.solver, self.sampling.eta, generators)
        loop = Loop(pipeline, self.plan, network, kept, options, self.tell)
        try:
            if (settings := self.sampling.free_init) is None:
                return loop.run(self._start(noise, video, kept), task.timesteps, noise)
            return self._repeatedly(settings, loop, noise, kept, generators)
        except NonFiniteError as error:
            explained = pipeline._explained(error)
            if explained is error:
                raise
            raise explained from error

    def _text(self) -> EncodedPrompts:
        plan, pipeline, batch = self.plan, self.pipeline, self.plan.batch
        encoded = plan.prepared.text if batch.prompts is None else None
        if encoded is None:
            encoded = pipeline._encode(plan.texts, self.task.guided)
        if batch.frames is not None:
            latents = self.task.latents.num_latent_frames
            encoded = travelled_prompts(encoded, batch.frames, self.task.shape.num_frames, latents)
        dtype: Any = pipeline.backbone.dtype
        return encoded.on(pipeline.working_device, dtype).repeated(batch.per_prompt)

    def _noise(self, generators: list[torch.Generator]) -> Tensor:
        # Drawn even where it is replaced, so that what a solver draws later stays the same.
        windows, shape = self.plan.windows, self.task.latents
        if self.sampling.free_noise and windows is not None:
            piece = self.pipeline.codec.latents_per_piece or 1
            hop = (windows.size - windows.shared) * piece
            noise = free_noise(generators, shape, windows.size * piece, hop)
        else:
            noise = draw_noise(generators, shape)
        given = self.plan.prepared.noise
        return (noise if given is None else given).to(self.pipeline.working_device, torch.float32)

    def _pinned(self) -> PinnedVideo | None:
        pinned, known, shape = self.plan.prepared.pinned, self.plan.prepared.known, self.task.shape
        if pinned is None and (known is not None or "picture channels" in self.pipeline.can.takes):
            pinned = nothing_pinned(shape.num_frames, shape.height, shape.width)
        return pinned if pinned is None or known is None else mark_known(known, pinned)

    def _settings(self) -> SettingsDict:
        motion, adapter = self.plan.request.motion, getattr(self.pipeline.backbone, "motion_adapter", None)
        settings: SettingsDict = {}
        if not isinstance(motion.strength, Sequence):
            settings["motion_strength"] = motion.strength
        if adapter is not None and adapter.trained_frames is not None:
            settings["frame_positions"] = self.task.frame_positions(adapter.trained_frames)
        return settings

    def _start(self, noise: Tensor, video: Tensor | None, kept: Kept | None) -> Tensor:
        solver, first = self.plan.solver, self.task.timesteps[:1]
        start = noise * float(solver.init_noise_sigma)
        if video is not None:
            start = solver.add_noise(video.expand_as(noise), noise, first.expand(len(noise)))
        if kept is not None and self.plan.prepared.known is not None:
            start = kept.put_into(start, noise, solver, first)
        return start

    def _repeatedly(
        self, settings: FreeInit, loop: Loop, noise: Tensor, kept: Kept | None, generators: list[torch.Generator]
    ) -> Tensor:
        solver = self.plan.solver

        def run(start: Tensor, levels: Tensor) -> Tensor:
            fresh = start / float(solver.init_noise_sigma)
            if kept is not None and self.plan.prepared.known is not None:
                start = kept.put_into(start, fresh, solver, levels[:1])
            return loop.run(start, levels, fresh)

        return denoise_repeatedly(
            settings, run, solver, noise, generators, len(self.task.timesteps), lambda: self.pipeline._interrupt
        )


class Loop:
    """The denoising loop of one call, with everything that happens around its steps."""

    def __init__(
        self,
        pipeline: PipelineBase,
        plan: Plan,
        network: Network,
        kept: Kept | None,
        options: SettingsDict,
        tell: OnProgress = tell_nobody,
    ) -> None:
        """The network under guidance, in windows if there are any.

        Args:
            pipeline: of the model.
            plan: of the call.
            network: told everything.
            kept: what is put back after every step, if anything.
            options: of the solver's steps.
            tell: told of every step.
        """
        self._tell = tell
        self._done, self._steps = 0, _count_steps(plan)
        self.pipeline = pipeline
        self.plan = plan
        self.kept = kept
        self.options = options
        self.begin_step = network.begin_step
        strength, latents = plan.request.motion.strength, plan.task.latents.num_latent_frames
        positive, negative = dict(network.positive), network.negative
        axes = dict(network.frame_axes)
        if isinstance(strength, Sequence):
            by_frame = _by_latent_frame(torch.tensor(strength, dtype=torch.float32), latents)
            shown = {"motion_strengths": by_frame[None].to(pipeline.working_device).expand(plan.task.count, -1)}
            positive |= shown
            negative = None if negative is None else {**negative, **shown}
            axes["motion_strengths"] = 1
        self.windowed: Any = network.predict
        if plan.windows is not None:
            piece = pipeline.codec.latents_per_piece or 1
            self.windowed = ContextWindows(network.predict, plan.windows, axes, piece)
        scale = plan.request.sampling.guidance_scale
        self.guidance = Guidance(
            self.windowed, positive, negative, 1.0 if scale is None else scale, plan.batched_guidance
        )

    def run(self, start: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Denoised latents; `noise` is what `start` was made with."""
        after = [] if self.plan.prepared.after_step is None else [self.plan.prepared.after_step]
        if self.kept is not None:
            after.append(self.kept.after_step(noise, self.plan.solver, timesteps))

        def begin(index: int) -> None:
            if self.begin_step is not None:
                self.begin_step(float(timesteps[index]))
            if isinstance(self.windowed, ContextWindows):
                self.windowed.begin_step(index)

        def diagnose(latents: Tensor, timestep: Tensor) -> str:
            backbone = self.pipeline.backbone
            return first_anomalous_module(backbone, lambda: self.guidance(latents, timestep)) or "the scheduler"

        self._tell(Progress("denoise", self._done, self._steps))
        bar: Any = self.pipeline.progress_bar  # pyright: ignore[reportAttributeAccessIssue]  # of a mixin at run time
        with bar(total=len(timesteps)) as bar:
            on_step = self._on_step(bar, after)
            return denoise(self.guidance, self.plan.solver, start, timesteps, on_step, self.options, diagnose, begin)

    def _on_step(self, bar: Any, after: Sequence[Callable[[int, Tensor], Tensor]]) -> Callable:
        callback, pipeline = self.plan.callback, self.pipeline

        def on_step(report: StepReport) -> Tensor | None:
            bar.update()
            replaced = None
            if callback is not None:
                given = callback(pipeline, report.index, report.timestep, {"latents": report.latents}) or {}
                replaced = given.get("latents")
            for change in after:
                replaced = change(report.index, report.latents if replaced is None else replaced)
            self._done += 1
            self._tell(Progress("denoise", self._done, self._steps, report))
            if pipeline._interrupt:
                raise StopSampling(replaced)
            return replaced

        return on_step


def _count_steps(plan: Plan) -> int:
    """Of all passes; a solver may take more than it was asked for."""
    count, again = len(plan.task.timesteps), plan.request.sampling.free_init
    if again is None:
        return count
    asked = plan.request.sampling.num_inference_steps or 1
    return sum(again.steps_of(index, asked) + count - asked for index in range(again.passes))


def _by_latent_frame(values: Tensor, num_latent_frames: int) -> Tensor:
    """Means of the values `[f]` of the frames that each latent frame stands for."""
    if len(values) == num_latent_frames:
        return values
    owner = torch.arange(len(values)) * num_latent_frames // len(values)
    sums = torch.zeros(num_latent_frames).index_add_(0, owner, values)
    return sums / torch.bincount(owner, minlength=num_latent_frames)
