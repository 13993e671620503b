"""The one way from a request to a video, whatever the family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from muybridge.errors import ConfigError
from muybridge.pipelines.base import OutputType, PipelineBase, StepCallback
from muybridge.pipelines.call import CallSettings
from muybridge.pipelines.plan import Plan, Planner, batch_of
from muybridge.pipelines.progress import OnProgress, Progress, tell_nobody
from muybridge.pipelines.record import recorded
from muybridge.pipelines.run import Run
from muybridge.request import Inputs, Request
from muybridge.request.flat import request_of_call
from muybridge.sampling import video_generators
from muybridge.types import SettingsDict
from muybridge.vae.frames import to_uint8
from muybridge.video import Video

_OPTIONS = ("inputs", "num_videos_per_prompt", "output_type", "callback_on_step_end", "batched_guidance", "on_progress")


class VideoPipeline(PipelineBase):
    """Base of the pipelines; a family adds its parts and fills in the hooks of `PipelineBase`."""

    def __call__(
        self,
        prompt: str | Sequence[str] | Mapping[int, str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        **settings: Unpack[CallSettings],
    ) -> Any:
        """Generate: `make` by flat names.

        Args:
            prompt: one, or a list; each gives `num_videos_per_prompt` videos. Or prompts by frame, as in
                `{0: "a red circle", 32: "a blue circle"}`, for one video that travels from each to the next.
            negative_prompt: what not to show; one for all, or one for each prompt.
            **settings: any of these, None being the model's own:

                - `plain_prompt`: read brackets, tags and names of embeddings in prompts as words;
                - `num_frames`, `height`, `width`, `fit`, `fps`: see `Shape`; by default those of a source or control
                  video, as far as the model can, or the model's;
                - `seed`, `num_inference_steps`, `guidance_scale`, `scheduler`, `eta`, `windows`, `free_noise`,
                  `free_init`, `profile`, `clip_apply_ratio`: see `Sampling`;
                - `motion_strength`, `positions`: see `Motion`;
                - `keyframes`, `sketches`, `control_strength`, `control_start`, `control_end`, `init_video`,
                  `strength`, `mask`, `controls`, `image_prompt`, `image_prompt_strength`, `known_latents`, `latents`,
                  `motion_condition`, `prompt_embeds` and its like, `original_size` and its like: the keywords of
                  the kinds in `muybridge.conditioning.kinds`, and of those that other packages bring;
                - `conditions`: conditions as values, beside those of the keywords above;
                - `num_videos_per_prompt`, `output_type`, `callback_on_step_end`, `batched_guidance`, `on_progress`: see
                  `make`.

        Raises:
            MuybridgeError: as `make`.
        """
        for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if text is not None and not isinstance(text, (str, Sequence, Mapping)):
                raise ConfigError(f"{name} must be text, or a list of texts; given {type(text).__name__}.")
        given: SettingsDict = {**settings}
        options = {name: given.pop(name) for name in _OPTIONS if name in given}
        if prompt is None or isinstance(prompt, str | Mapping):
            given["prompt"] = dict(prompt) if isinstance(prompt, Mapping) else prompt
        else:
            options["prompts"] = list(prompt)
        if negative_prompt is None or isinstance(negative_prompt, str):
            given["negative_prompt"] = negative_prompt
        else:
            options["negative_prompts"] = list(negative_prompt)
        return self.make(request_of_call(given), **options)

    @torch.no_grad()
    def make(  # noqa: PLR0913  # the one way in; everything besides the request goes by keyword
        self,
        request: Request,
        *,
        inputs: Inputs | None = None,
        prompts: Sequence[str] | None = None,
        negative_prompts: Sequence[str] | None = None,
        num_videos_per_prompt: int = 1,
        output_type: OutputType = "video",
        callback_on_step_end: StepCallback | None = None,
        batched_guidance: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Carry a request out; everything that can be checked is checked before a step is run.

        Args:
            request: what to make. One with segments is for `longvideo.PipelineSegments`.
            inputs: its files, where they have been opened already.
            prompts: several texts instead of the request's one, for a batch.
            negative_prompts: one for each of them.
            num_videos_per_prompt: videos of each text; number i uses the seed plus i.
            output_type: "video" gives a `Video` for a single text, else a list of them; "pil" a list of pictures for
                each video; "np" `[b, f, h, w, c]` and "pt" `[b, f, c, h, w]` in [0, 1]; "latent" `[b, c, f, h, w]`.
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": ...}); may return replaced latents.
            batched_guidance: both branches of guidance at once, or one after the other in half the memory; by default
                as the pipeline was placed in memory, else at once.
            on_progress: told what is done, and ends the call by what it raises; it changes nothing.

        Raises:
            ConfigError: values out of range, that exclude each other, that would have no effect, or that this model
                cannot do.
            ShapeError: a size or number of frames the model cannot make (names the nearest), or conditions that do not
                fit.
            InputFileError: a picture or video that cannot be read.
            NonFiniteError: values became NaN, infinite or all zero; names the step and the first layer.
        """
        self._interrupt = False
        tell = on_progress or tell_nobody
        tell(Progress("encode"))
        batched = self.placement is None or self.placement.batched_guidance
        plan = Planner(self, request, inputs or Inputs()).plan(
            batch_of(request, prompts, negative_prompts, num_videos_per_prompt),
            output_type,
            callback_on_step_end,
            batched if batched_guidance is None else batched_guidance,
        )
        with self._weighing(plan.loras):
            result = Run(self, plan, tell).latents()
            record = recorded(self, plan)
        videos = _finished(self, plan, result, record, tell)
        single = prompts is None and request.prompt is not None and num_videos_per_prompt == 1
        return videos[0] if single and output_type == "video" else videos

    @torch.no_grad()
    def decode(self, latents: Tensor, profile: str | None = None, seed: int = 0) -> Iterator[np.ndarray]:
        """The frames of a video whose latents a call returned with `output_type="latent"`.

        Args:
            latents: `[c, n, h, w]` of one video.
            profile: of EasyAnimate, "reference" or "clean"; by default the model's.
            seed: of the video, with which "reference" gives the frames that the call itself would have given.

        Yields:
            `uint8 [f, h, w, 3]`, piece by piece.

        Raises:
            ConfigError: an unknown profile.
            NonFiniteError: the VAE gave NaN or infinite values.
        """
        for piece in self.codec.decode(latents, _smoothing(self._profile(profile), seed)):
            yield to_uint8(piece)
        self.maybe_free_model_hooks()


def _smoothing(profile: str | None, seed: int) -> torch.Generator | None:
    return video_generators(seed, 1)[0] if profile == "reference" else None


def _finished(
    pipeline: VideoPipeline, plan: Plan, latents: Tensor, record: SettingsDict, tell: OnProgress = tell_nobody
) -> Any:
    """The result in the form that was asked for."""
    if plan.output_type == "latent":
        pipeline.maybe_free_model_hooks()
        return latents
    tell(Progress("decode"))
    seed, profile = plan.request.sampling.seed or 0, plan.request.sampling.profile
    decoded = (
        _told(pipeline.codec.decode(each, _smoothing(profile, seed + i)), tell) for i, each in enumerate(latents)
    )
    if plan.output_type in ("pt", "np"):
        pixels = torch.stack([torch.cat(list(pieces)) for pieces in decoded])
        pipeline.maybe_free_model_hooks()
        return pixels if plan.output_type == "pt" else pixels.movedim(2, -1).numpy()
    frames = [np.concatenate([to_uint8(piece) for piece in pieces]) for pieces in decoded]
    pipeline.maybe_free_model_hooks()
    fps = plan.request.shape.fps or 0.0
    videos = [Video(each, fps=fps, request=_own_record(plan, record, i)) for i, each in enumerate(frames)]
    return [video.to_pil() for video in videos] if plan.output_type == "pil" else videos


def _told(pieces: Iterator[Tensor], tell: OnProgress) -> Iterator[Tensor]:
    for piece in pieces:
        tell(Progress("decode"))
        yield piece


def _own_record(plan: Plan, record: SettingsDict, index: int) -> SettingsDict:
    """That of one video of a batch."""
    batch = plan.batch
    own = {**record, "sampling": {**record["sampling"], "seed": (plan.request.sampling.seed or 0) + index}}
    if batch.prompts is not None and batch.frames is None:
        own["prompt"] = batch.prompts[index // batch.per_prompt]
    if batch.negatives is not None and not isinstance(batch.negatives, str):
        own["negative_prompt"] = batch.negatives[index // batch.per_prompt % len(batch.negatives)]
    return own
