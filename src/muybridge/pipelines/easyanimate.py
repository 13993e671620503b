"""EasyAnimate: text, pictures and videos to a video, with a transformer that makes all frames together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection, PreTrainedTokenizerBase, T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.checkpoints.easyanimate import load_parts
from muybridge.conditioning import EncodedPrompts, Picture, embed_picture, encode_prompts_t5
from muybridge.conditioning.t5 import MAX_TOKENS
from muybridge.errors import ConfigError, NonFiniteError
from muybridge.pipelines.base import (
    CommonSettings,
    Decode,
    OutputType,
    StepCallback,
    VideoPipeline,
    check_prompts,
    prompt_list,
    require,
    step_options,
    timesteps_of,
)
from muybridge.pipelines.decoding import to_uint8
from muybridge.pipelines.easyanimate_latents import decode_video, encode_pinned, first_picture, kept_of
from muybridge.pipelines.easyanimate_network import finite_states, network_inputs, network_predictor, overflowed
from muybridge.pipelines.easyanimate_task import (
    PROFILES,
    Conditions,
    Profile,
    Task,
    check_size,
    pin_known,
    usual_of,
)
from muybridge.pipelines.prompts import Texts, read_texts
from muybridge.pipelines.source_video import SourceVideo, follow, sources_of
from muybridge.sampling import Guidance, Scheduler, draw_noise, make_plain_scheduler, video_generators
from muybridge.sampling.schedulers import EASYANIMATE_BETAS
from muybridge.types import LatentShape, VideoShape
from muybridge.vae import AutoencoderKLMagvit

if TYPE_CHECKING:
    from transformers import BaseImageProcessor


class EasyAnimatePipeline(VideoPipeline):
    """Text to video and to picture, image to video, first and last frame, video to video, and inpainting.

    A task is what is given: nothing but text, keyframes, a source video, a mask. Source: EasyAnimate V3 at commit
    d3b8bbb, `easyanimate/pipeline/pipeline_easyanimate_inpaint.py`.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->vae"
    _optional_components = ["image_encoder", "image_processor"]

    def __init__(  # noqa: PLR0913, PLR0917  # ConfigMixin saves a pipeline's keyword arguments
        self,
        vae: AutoencoderKLMagvit,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        transformer: Transformer3DModel,
        scheduler: SchedulerMixin,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        image_processor: BaseImageProcessor | None = None,
        default_size: Sequence[int] | None = None,
        default_num_frames: int = 144,
        default_steps: int = 25,
        default_guidance: float = 7.0,
        max_tokens: int = MAX_TOKENS,
        clean_captions: bool = True,
        known_frames: int = 3,
        profile: Profile = "reference",
    ) -> None:
        """Assemble from parts; everything after them is saved with the model.

        Args:
            vae: of videos.
            text_encoder: T5.
            tokenizer: of T5.
            transformer: with motion modules, or frames are independent of each other.
            scheduler: its noise levels are those the model was trained on.
            image_encoder: CLIP, for models that take an image embedding.
            image_processor: what that encoder wants of its pictures.
            default_size: (height, width) the model is made for, of a call that names none; another one warns. None
                where that is not known: then calls are 384 x 672.
            default_num_frames: of a call that names none.
            default_steps: likewise.
            default_guidance: likewise.
            max_tokens: tokens read of a prompt.
            clean_captions: whether prompts are cleaned as the captions of EasyAnimate V3 were.
            known_frames: for how many frames a keyframe at either end is held.
            profile: "reference" gives the original's numbers: sampled posteriors, and a second pass over the decoded
                video that hides the seams between its pieces. "clean" takes means and makes no second pass.
        """
        super().__init__()
        require(
            {
                f"profile must be one of {PROFILES}; given {profile!r}.": profile in PROFILES,
                f"known_frames must be at least 1; given {known_frames}.": known_frames >= 1,
            }
        )
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            scheduler=scheduler,
            image_encoder=image_encoder,
            image_processor=image_processor,
        )
        self.register_to_config(
            default_size=None if default_size is None else list(default_size),
            default_num_frames=default_num_frames,
            default_steps=default_steps,
            default_guidance=default_guidance,
            max_tokens=max_tokens,
            clean_captions=clean_captions,
            known_frames=known_frames,
            profile=profile,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]  # diffusers' takes any keyword; here they are known
        cls, model: str | os.PathLike[str], torch_dtype: torch.dtype = torch.float32, **components: Any
    ) -> EasyAnimatePipeline:
        """Load a published folder, or one written by `save_pretrained`; parts given by keyword are used instead.

        Of a published folder, `model_index.json` and the scheduler are not looked at: they name other classes and other
        settings than the model was trained with.

        Raises:
            CheckpointError: a part is missing, damaged, or does not fit its config.
            ConfigError: a keyword that is not a part of this pipeline.
        """
        pipeline = cls(**load_parts(model, torch_dtype, components))
        pipeline.remember_parts(None if components else str(model))
        return pipeline

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        return self.transformer

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return self.vae.spatial_factor * self.transformer.config["patch_size"]

    @property
    def takes_pictures(self) -> bool:
        """Whether the transformer has channels for pictures and masks."""
        config = self.transformer.config
        return config["in_channels"] > config["latent_channels"]

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  # the one place where everything a user can ask for comes together
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        *,
        plain_prompt: bool = False,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        keyframes: Mapping[int, Picture] | None = None,
        known_latents: Mapping[int, Tensor] | None = None,
        init_video: SourceVideo | None = None,
        mask: np.ndarray | None = None,
        strength: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        clip_apply_ratio: float = 0.5,
        seed: int | None = None,
        num_videos_per_prompt: int = 1,
        scheduler: str | None = None,
        eta: float = 0.0,
        motion_strength: float = 1.0,
        motion_condition: Tensor | None = None,
        batched_guidance: bool = True,
        profile: Profile | None = None,
        fps: float | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        negative_prompt_mask: Tensor | None = None,
        output_type: OutputType = "video",
        callback_on_step_end: StepCallback | None = None,
    ) -> Any:
        """Generate.

        Words that the AnimateDiff pipeline has too mean the same here.

        Args:
            prompt: one, or a list; each gives `num_videos_per_prompt` videos.
            negative_prompt: what not to show; one for all, or one for each prompt.
            plain_prompt: read brackets and tags in them as words.
            num_frames: 1 for a picture, or a multiple of what the VAE makes at once (8; 9 in V2). By default the
                model's, or as many as a shorter `init_video` allows.
            height: in pixels, a multiple of `size_multiple`; by default the model's, or as many pixels in the shape of
                `init_video`.
            width: likewise.
            keyframes: pictures by frame, negative indexes from the end: `{0: a}` is image to video, `{0: a, -1: b}`
                first and last frame. They are stretched to the size of the video.
            known_latents: latents `[b, c, n, h, w]` (b may be 1) by their first latent frame, as calls return them with
                `output_type="latent"`: the video has exactly these there. They are whole pieces of the VAE, in V3 2
                latent frames for 8 frames: `{0: before[:, :, -2:]}` continues a video from its last 8 frames without
                the way through 8-bit pictures. Models without channels for pictures take them too.
            init_video: a video to start from; its first `num_frames` frames are used.
            mask: with `init_video`, `[h, w]` or `[f, h, w]` of its size: white (255, 1, True) is made anew, black kept.
            strength: with `init_video`, the share of the noise levels that is run through, 0 to 1: how far it may
                change; 1 (the default with a mask) keeps nothing of what is made anew; without a mask 0.7.
            num_inference_steps: denoising steps; by default the model's.
            guidance_scale: how strongly the prompt is followed; 1 turns guidance off; by default the model's.
            clip_apply_ratio: last share of the steps in which the image embedding is used.
            seed: of the first video; video number i uses `seed + i`. By default random.
            num_videos_per_prompt: videos of each prompt.
            scheduler: another solver by name, with the model's noise schedule.
            eta: of DDIM.
            motion_strength: scales what the motion modules add; 0 gives independent frames.
            motion_condition: a description of the motion wanted, `[b, d]` or `[1, d]` for all, for motion modules of a
                kind that reads one. Guidance does not change it: both its branches are told the same.
            batched_guidance: both branches of guidance at once, or one after the other in half the memory.
            profile: "reference" or "clean", see the constructor; by default the model's.
            fps: frames per second of the result; changes playback only. By default those of `init_video`, or 24.
            latents: start from these instead of noise, `[b, c, f, h, w]` of unit variance.
            prompt_embeds: text states `[b, n, d]` instead of prompts, with `prompt_mask`.
            negative_prompt_embeds: likewise.
            prompt_mask: `[b, n]`, 1 for tokens that count; by default all.
            negative_prompt_mask: likewise.
            output_type: as in `AnimateDiffPipeline`.
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": ...}); may return replaced latents.

        Raises:
            ConfigError: values out of range, that exclude each other, or that would have no effect; pictures for a
                model that has no channels for them.
            ShapeError: a size or number of frames the model cannot make (names the nearest), or conditions that do not
                fit.
            InputFileError: a keyframe that cannot be read.
            NonFiniteError: values became NaN, infinite or all zero; names the step and the first layer.
        """
        self._interrupt = False
        conditions = Conditions(keyframes, known_latents, init_video, mask, strength)
        conditions.check(self.takes_pictures)
        own = self.config["default_num_frames"], self.config["default_size"]
        usual = usual_of(self.vae, *own, self.size_multiple)
        shape, rate = follow((num_frames, height, width), fps, sources_of(init_video), usual)
        common = self._common(
            num_inference_steps,
            guidance_scale,
            seed,
            num_videos_per_prompt=num_videos_per_prompt,
            scheduler=scheduler,
            eta=eta,
            motion_strength=motion_strength,
            fps=rate,
            output_type=output_type,
            batched_guidance=batched_guidance,
            callback=callback_on_step_end,
        )
        require(
            {f"motion_strength must be one number here; given {motion_strength!r}.": isinstance(motion_strength, Real)}
        )
        task = self._task(shape, conditions, profile, clip_apply_ratio)
        task = replace(task, motion_condition=motion_condition)
        prompts = prompt_list(prompt)
        given = None
        if prompt_embeds is not None:
            given = EncodedPrompts(prompt_embeds, negative_prompt_embeds, prompt_mask, negative_prompt_mask)
        guided = common.guidance_scale != 1.0
        check_prompts(prompts, negative_prompt, given, negative_prompt_embeds, guided)
        texts = read_texts(prompts, negative_prompt, plain_prompt, None)
        own = {
            "prompt": prompts,
            "negative_prompt": negative_prompt,
            "plain_prompt": plain_prompt,
            "num_frames": task.num_frames,
            "height": task.height,
            "width": task.width,
            "strength": None if init_video is None else task.strength,
            "clip_apply_ratio": clip_apply_ratio,
            "profile": task.profile,
        }
        unrecorded = {
            "keyframes": keyframes,
            "known_latents": known_latents,
            "init_video": init_video,
            "mask": mask,
            "motion_condition": motion_condition,
            "latents": latents,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "callback_on_step_end": callback_on_step_end,
        }
        with self._weighing(self._named_loras(texts.loras)):
            encoded = given or self._encode(texts, guided)
            encoded = encoded.on(self._execution_device, self.transformer.dtype).repeated(num_videos_per_prompt)
            result = self._make(task, common, encoded, latents)
            request = self._request(common, own, unrecorded)
        videos = self._finish(result, common, request, self._decoder(task, common.seed))
        single = isinstance(prompt, str) and num_videos_per_prompt == 1 and output_type == "video"
        return videos[0] if single else videos

    @torch.no_grad()
    def decode(self, latents: Tensor, profile: Profile | None = None, seed: int = 0) -> Iterator[np.ndarray]:
        """The frames of a video whose latents a call returned with `output_type="latent"`.

        Args:
            latents: `[c, n, h, w]` of one video.
            profile: "reference" or "clean", see the constructor; by default the model's.
            seed: of the video, with which "reference" gives the frames that the call itself would have given.

        Yields:
            `uint8 [f, h, w, 3]`, piece by piece; with "reference" all frames at once.

        Raises:
            ConfigError: an unknown profile.
            NonFiniteError: the VAE gave NaN or infinite values.
        """
        chosen = self._profile(profile)
        smoothing = video_generators(seed, 1)[0] if chosen == "reference" else None
        for piece in decode_video(self.vae, latents, smoothing):
            yield to_uint8(piece)
        self.maybe_free_model_hooks()

    def _decoder(self, task: Task, seed: int) -> Decode:
        def decode(latents: Tensor, index: int) -> Iterator[Tensor]:
            smoothing = video_generators(seed + index, 1)[0] if task.profile == "reference" else None
            return decode_video(self.vae, latents, smoothing)

        return decode

    def make_solver(self, name: str) -> Scheduler:
        """As the original makes them, of its noise schedule and the solver's own defaults; or like the model's own."""
        own = dict(self.scheduler.config)
        if all(own.get(key) == value for key, value in EASYANIMATE_BETAS.items()):
            return make_plain_scheduler(name, EASYANIMATE_BETAS)
        return super().make_solver(name)

    def _encode(self, texts: Texts, guided: bool) -> EncodedPrompts:
        negatives = texts.negatives() if guided else None
        max_tokens, clean = self.config["max_tokens"], self.config["clean_captions"]

        def encode() -> EncodedPrompts:
            return encode_prompts_t5(self.tokenizer, self.text_encoder, texts.prompts, negatives, max_tokens, clean)

        return finite_states(self.text_encoder, encode)

    def _profile(self, profile: Profile | None) -> Profile:
        chosen: Profile = self.config["profile"] if profile is None else profile
        require({f"profile must be one of {PROFILES}; given {chosen!r}.": chosen in PROFILES})
        return chosen

    def _task(
        self, shape: VideoShape, conditions: Conditions, profile: Profile | None, clip_apply_ratio: float
    ) -> Task:
        chosen = self._profile(profile)
        ratio = clip_apply_ratio
        require({f"clip_apply_ratio must be between 0 and 1; given {ratio}.": 0 <= ratio <= 1})
        count, rows, columns = shape.num_frames, shape.height, shape.width
        self.vae.num_latent_frames(count)
        check_size(rows, columns, self.config["default_size"], self.size_multiple)
        pinned, known = conditions.pin(count, rows, columns, self.config["known_frames"]), None
        if conditions.known_latents is not None:
            latents = self._latent_shape(count, rows, columns)
            pinned, known = pin_known(self.vae, conditions.known_latents, pinned, latents)
        return Task(count, rows, columns, pinned, conditions.strength_or_default, chosen, ratio, known)

    def _latent_shape(self, num_frames: int, height: int, width: int) -> LatentShape:
        factor = self.vae.spatial_factor
        frames = self.vae.num_latent_frames(num_frames)
        return LatentShape(self.transformer.config["latent_channels"], frames, height // factor, width // factor)

    def _make(self, task: Task, common: CommonSettings, encoded: EncodedPrompts, latents: Tensor | None) -> Tensor:
        solver = self._solver(common.scheduler, common.steps)
        timesteps = timesteps_of(solver, task.strength)
        count = len(encoded.positive)
        if task.known is not None:
            task.known.check_batch(count)
        generators = video_generators(common.seed, count)
        shape = self._latent_shape(task.num_frames, task.height, task.width)
        noise = self._start(draw_noise(generators, shape), latents)
        sampled = generators if task.profile == "reference" else ()
        given = encode_pinned(self.vae, task.pinned, sampled, self.takes_pictures, task.strength < 1.0, task.known)
        start = noise * float(solver.init_noise_sigma)
        if given.video is not None:
            start = solver.add_noise(given.video.expand_as(noise), noise, timesteps[:1].expand(len(noise)))
        callback = common.callback
        if (kept := kept_of(self.vae, task, noise, self.takes_pictures)) is not None:
            start = start if task.known is None else kept.put_into(start, noise, solver, timesteps[:1])
            callback = kept.after_steps(noise, solver, timesteps, callback)
        picture = self._embedded_picture(task)
        positive, negative = network_inputs(self.transformer, task, encoded, given.inpaint, picture)
        strength = cast("float", common.motion_strength)
        predict = network_predictor(self.transformer, strength, task.clip_apply_ratio, timesteps)
        guidance = Guidance(predict, positive, negative, common.guidance_scale, common.batched_guidance)
        options = step_options(solver, common.eta, generators)
        try:
            return self._denoise(guidance, solver, start, options, callback, timesteps)
        except NonFiniteError as error:
            if self.transformer.dtype is torch.float16:
                raise overflowed(error) from error
            raise

    def _embedded_picture(self, task: Task) -> Tensor | None:
        if self.image_encoder is None or self.transformer.config["clip_channels"] is None:
            return None
        picture = first_picture(self.vae, task)
        if picture is None:
            return None
        if self.image_processor is None:
            raise ConfigError("This pipeline has an image_encoder without its image_processor; give both.")
        return embed_picture(self.image_processor, self.image_encoder, picture)
