"""From a request to a plan: everything checked, the model's defaults filled in, files read, nothing computed."""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from muybridge.conditioning.prepared import Prepared, Task, joined
from muybridge.conditioning.travel import check_travel
from muybridge.errors import ConfigError
from muybridge.motion import cap_positions, stretch_positions
from muybridge.pipelines.base import (
    OUTPUT_TYPES,
    OutputType,
    PipelineBase,
    StepCallback,
    check_prompts,
    prompt_list,
    require,
    step_options,
    timesteps_of,
)
from muybridge.pipelines.prompts import Texts, read_texts
from muybridge.request import Call, Condition, Inputs, Positions, Request, WindowSettings
from muybridge.request.following import Followed, Usual, follow
from muybridge.request.sizes import fit_size
from muybridge.sampling import Scheduler, check_levels, plan_windows
from muybridge.types import SettingsDict, VideoShape
from muybridge.video.value import MAX_FPS, MIN_FPS


@dataclass(frozen=True, eq=False)
class Batch:
    """How many videos of which texts.

    Attributes:
        prompts: one for each, or those by frame of one video; None where text states are given.
        negatives: one for all, one for each, or None.
        frames: of prompts by frame; None where each prompt has its videos.
        per_prompt: videos of each.
    """

    prompts: list[str] | None
    negatives: str | Sequence[str] | None
    frames: list[int] | None
    per_prompt: int

    def count(self, states: Tensor | None) -> int:
        """Videos of the call, which has prompts or their `states [b, n, d]`."""
        if self.frames is not None:
            return self.per_prompt
        return (len(self.prompts or ()) if states is None else len(states)) * self.per_prompt


@dataclass(frozen=True, eq=False)
class Plan:
    """A call, checked, with the model's defaults filled in and its files read; nothing is computed yet.

    Attributes:
        request: as it was given, with all that is known filled in.
        batch: its texts.
        task: as conditions see it.
        prepared: by the conditions.
        texts: as read.
        loras: weights of the LoRAs that they name.
        solver: with its timesteps set.
        windows: counted in pieces of the codec, or None.
        output_type: form of the result.
        batched_guidance: whether both branches of guidance are computed at once.
        callback: told of each step.
        share: of the noise levels that is run through.
    """

    request: Request
    batch: Batch
    task: Task
    prepared: Prepared
    texts: Texts
    loras: Mapping[str, float]
    solver: Scheduler
    windows: WindowSettings | None
    output_type: OutputType
    batched_guidance: bool
    callback: StepCallback | None
    share: float = 1.0


def batch_of(
    request: Request, prompts: Sequence[str] | None, negatives: Sequence[str] | None, per_prompt: int
) -> Batch:
    """The texts of a request, or several instead of its one.

    Raises:
        ConfigError: several negatives for prompts by frame.
    """
    if request.prompt is not None and prompts is not None:
        raise ConfigError("The request has a prompt, and prompts are given too; leave one of them out.")
    for each in (*(prompts or ()), *(negatives or ())):
        if not isinstance(each, str):
            raise ConfigError(f"Prompts are text; given {type(each).__name__}.")
    travel = request.prompt if isinstance(request.prompt, Mapping) else None
    if travel is not None and negatives is not None:
        raise ConfigError("Prompts by frame have one negative prompt for all; give one.")
    own = list(travel.values()) if travel is not None else prompt_list(request.prompt)  # type: ignore[arg-type]
    return Batch(
        own if prompts is None else list(prompts),
        request.negative_prompt if negatives is None else list(negatives),
        None if travel is None else list(travel),
        per_prompt,
    )


def asked_shape(request: Request, inputs: Inputs, usual: Usual) -> tuple[VideoShape, float]:
    """Length, size and rate of the video that a request asks for, of a model with these usual ones.

    Raises:
        ConfigError: as `follow`.
    """
    asked = request.shape
    followed = [found for each in request.conditions for found in each.followed(inputs)]
    size = (asked.height, asked.width)
    if asked.fit is not None and (source := request.size_to_fit(inputs)) is not None:
        size = fit_size(*source, asked.fit, usual.multiple)
    return follow((asked.num_frames, size[0], size[1]), asked.fps, _numbered(followed), usual)


class Planner:
    """From a request to a plan."""

    def __init__(self, pipeline: PipelineBase, request: Request, inputs: Inputs) -> None:
        """For a pipeline; `inputs` are the files of the request, or nothing yet."""
        self.pipeline = pipeline
        self.request = request
        self.inputs = inputs
        self.can = pipeline.can

    def plan(
        self, batch: Batch, output_type: OutputType, callback: StepCallback | None, batched_guidance: bool
    ) -> Plan:
        """Check everything, and let the conditions prepare what networks are told.

        Args:
            batch: the texts.
            output_type: form of the result.
            callback: told of each step.
            batched_guidance: whether both branches of guidance are computed at once.

        Raises:
            MuybridgeError: as `VideoPipeline.make`.
        """
        pipeline, conditions = self.pipeline, self.request.conditions
        _check_single(conditions)
        if self.request.segments is not None:
            raise ConfigError("A request with segments makes a long video; see muybridge.longvideo.PipelineSegments.")
        self._check_settings()
        self.request.open(self.inputs)
        shape, fps = asked_shape(self.request, self.inputs, self.pipeline._usual(self.request.sampling.windows))
        request = _filled(pipeline, self.request, shape, fps)
        _check_ranges(request, batch.per_prompt, output_type)
        guided = request.sampling.guidance_scale != 1.0
        call = Call(self.can, conditions, guided, self.inputs)
        for each in conditions:
            each.check(call)
        self._check_sampling(request)
        pipeline._check_shape(shape)
        latent_shape = pipeline.codec.latent_shape(shape)
        self._check_motion(request)
        texts = self._texts(batch, shape.num_frames, guided)
        loras = pipeline._named_loras(texts.loras)
        share = min((each.noise_share(call) for each in conditions), default=1.0)
        solver = pipeline._solver(request.sampling.scheduler, request.sampling.num_inference_steps or 1)
        task = Task(
            shape,
            latent_shape,
            timesteps_of(solver, share),
            batch.count(self._given_states("prompt_embeds")),
            guided,
            self.inputs,
            conditions,
            lambda trained: _positions(request.motion.positions, latent_shape.num_latent_frames, trained),
            pipeline.known_frames,
            None if self.request.shape.fit is None else self.request.size_to_fit(self.inputs),
        )
        windows = self._windows(request, shape.num_frames)
        step_options(solver, request.sampling.eta, [])
        prepared = joined([each.prepare(pipeline, task) for each in conditions])
        if request.sampling.free_init is not None:
            if prepared.starts_from or share < 1:
                raise ConfigError("free_init starts from noise alone; leave init_video out.")
            acting = [each.influence for each in prepared.controls if each.influence.strength != 0]
            spans = [(each.lowest, each.highest) for each in acting]
            check_levels(request.sampling.free_init, solver, len(task.timesteps), spans)
        return Plan(
            request,
            batch,
            task,
            prepared,
            texts,
            loras,
            solver,
            windows,
            output_type,
            batched_guidance,
            callback,
            share,
        )

    def _check_settings(self) -> None:
        sampling = self.request.sampling
        named = [name for name in ("profile", "clip_apply_ratio") if getattr(sampling, name) is not None]
        self.can.require_settings(named)
        if isinstance(self.request.prompt, Mapping):
            self.can.require({"prompt travel"}, "prompts by frame")
        if sampling.windows is not None or sampling.free_noise:
            self.can.require({"windows"}, "windows")

    def _check_sampling(self, request: Request) -> None:
        sampling, positions = request.sampling, request.motion.positions
        plain = positions == "plain"
        kinds = {each.kind for each in request.conditions}
        adapter: Any = getattr(self.pipeline.backbone, "motion_adapter", None)
        knows_positions = adapter is not None and adapter.trained_frames is not None
        require(
            {
                f"positions must be one of {get_args(Positions)}; given {positions!r}.": (
                    positions in get_args(Positions)
                ),
                "free_noise repeats the noise of one window; give windows too.": not sampling.free_noise
                or sampling.windows is not None,
                "free_noise has no effect on latents that are given; leave one of them out.": not sampling.free_noise
                or "start-noise" not in kinds,
                "Windows start at position 0 each; leave positions or windows out.": plain or sampling.windows is None,
                "Without motion modules, positions in time have no effect; leave them out.": plain or knows_positions,
            }
        )
        if sampling.windows is not None:
            plan_windows(request.shape.num_frames or 0, sampling.windows)

    def _check_motion(self, request: Request) -> None:
        strength, count = request.motion.strength, request.shape.num_frames
        if getattr(self.pipeline.backbone, "motion_adapter", None) is None and strength not in (0, 1):
            raise ConfigError("Without motion modules, motion_strength has no effect; leave it out.")
        if isinstance(strength, Sequence) and len(strength) != count:
            raise ConfigError(f"motion_strength must be one number, or {count}, one a frame; given {len(strength)}.")

    def _given_states(self, name: str) -> Any:
        given = (each for each in self.request.conditions if each.kind == "text-states")
        return getattr(next(given, None), name, None)

    def _texts(self, batch: Batch, num_frames: int, guided: bool) -> Texts:
        if batch.frames is not None:
            check_travel(dict(zip(batch.frames, batch.prompts or (), strict=True)), num_frames)
        states = self._given_states("prompt_embeds"), self._given_states("negative_prompt_embeds")
        check_prompts(batch.prompts, batch.negatives, states, guided)
        return read_texts(
            batch.prompts,
            batch.negatives,
            self.request.plain_prompt,
            self.pipeline._known_embeddings(),
            one_video=batch.frames is not None,
        )

    def _windows(self, request: Request, num_frames: int) -> WindowSettings | None:
        if request.sampling.windows is None:
            return None
        codec = self.pipeline.codec
        if codec.latents_per_piece is None:
            raise ConfigError("Windows need a VAE that works piece by piece; this one takes all frames at once.")
        return request.sampling.windows.in_pieces(codec.frame_multiple)


def _filled(pipeline: PipelineBase, request: Request, shape: VideoShape, fps: float) -> Request:
    """With the model's defaults where the request names nothing."""
    sampling = request.sampling
    found = {
        "num_inference_steps": (sampling.num_inference_steps, pipeline.config["default_steps"]),
        "guidance_scale": (sampling.guidance_scale, pipeline.config["default_guidance"]),
    }
    filled: SettingsDict = {name: usual if given is None else given for name, (given, usual) in found.items()}
    seed = secrets.randbelow(2**31) if sampling.seed is None else operator.index(sampling.seed)
    filled |= {"seed": seed, "profile": pipeline._profile(sampling.profile)}
    extent = {"num_frames": shape.num_frames, "height": shape.height, "width": shape.width, "fps": fps, "fit": None}
    return request.model_copy(
        update={
            "sampling": sampling.model_copy(update=filled),
            "shape": request.shape.model_copy(update=extent),
        }
    )


def _check_ranges(request: Request, per_prompt: int, output_type: str) -> None:
    sampling, strength, fps = request.sampling, request.motion.strength, request.shape.fps or 0.0
    steps, guidance, seed = sampling.num_inference_steps or 0, sampling.guidance_scale, sampling.seed
    strengths = strength if isinstance(strength, Sequence) else [strength]
    ratio = sampling.clip_apply_ratio
    require(
        {
            f"num_inference_steps must be at least 1; given {steps}.": steps >= 1,
            f"guidance_scale must be between 0 and 1000; given {guidance}.": 0 <= (guidance or 0) < 1000,
            f"num_videos_per_prompt must be at least 1; given {per_prompt}.": per_prompt >= 1,
            f"seed must be between 0 and 2**63 - 1; given {seed}.": 0 <= (seed or 0) < 2**63,
            f"eta must be between 0 and 1; given {sampling.eta}.": 0 <= sampling.eta <= 1,
            f"clip_apply_ratio must be between 0 and 1; given {ratio}.": ratio is None or 0 <= ratio <= 1,
            f"motion_strength must be a finite number; given {strength}.": all(map(math.isfinite, strengths)),
            f"fps must be between {MIN_FPS:g} and {MAX_FPS:g}; given {fps}.": MIN_FPS <= fps <= MAX_FPS,
            f"output_type must be one of {OUTPUT_TYPES}; given {output_type!r}.": output_type in OUTPUT_TYPES,
        }
    )


def _check_single(conditions: Sequence[Condition]) -> None:
    kinds = [each.kind for each in conditions if each.is_single]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise ConfigError(f"There are two conditions of the kind {twice}; put all of it into one.")


def _numbered(followed: Sequence[Followed]) -> list[Followed]:
    """With numbers for all control videos but the first."""
    names: dict[str, int] = {}
    found = []
    for each in followed:
        index = names.get(each.name, 0)
        names[each.name] = index + 1
        found.append(
            each if index == 0 else replace(each, name=f"{each.name.removeprefix('The ').capitalize()} {index}")
        )
    return found


def _positions(positions: str, num_frames: int, trained_frames: int) -> Tensor | None:
    """Places `[f]` in time, or None for 0, 1, 2 and so on."""
    if positions == "plain":
        return None
    change = stretch_positions if positions == "stretched" else cap_positions
    return change(torch.arange(num_frames), trained_frames)
