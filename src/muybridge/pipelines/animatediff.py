"""AnimateDiff: a Stable Diffusion model and a motion adapter, from a prompt to a video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints import parts
from muybridge.checkpoints.locate import locate_model
from muybridge.conditioning import EncodedPrompts, Picture
from muybridge.conditioning.picture_sizes import Size, SizeChoices
from muybridge.conditioning.travel import travelled_prompts
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter
from muybridge.pipelines.animatediff_conditions import (
    check_source,
    dense_controls,
    encode_source,
    source_frames,
    sparse_controls,
    usual_of,
)
from muybridge.pipelines.animatediff_parts import (
    check_channels,
    check_text_encoders,
    part_loaders,
    refuse_on_sdxl,
)
from muybridge.pipelines.animatediff_sampling import Positions, SamplingChoices, Task, strengths_by_frame
from muybridge.pipelines.animatediff_text import (
    GivenStates,
    Prompt,
    TextConditions,
    encode_texts,
    read_words,
    text_conditions,
)
from muybridge.pipelines.base import (
    CommonSettings,
    OutputType,
    StepCallback,
    require,
    step_options,
    timesteps_of,
)
from muybridge.pipelines.controls import DenseControl, Influence, place_controls
from muybridge.pipelines.decoding import decode_frames
from muybridge.pipelines.embeddings import EmbeddingHost
from muybridge.pipelines.image_prompt import ImageConditions, ImagePromptHost
from muybridge.pipelines.precision import in_float32
from muybridge.pipelines.prompts import Texts
from muybridge.pipelines.source_video import SourceVideo, follow, sources_of
from muybridge.processor import multiplies
from muybridge.sampling import FreeInit, Scheduler, WindowSettings, denoise_repeatedly, video_generators
from muybridge.types import ScaleFactors


class AnimateDiffPipeline(ImagePromptHost, EmbeddingHost):
    """Text to video with a U-Net of Stable Diffusion 1.5 or XL that holds motion modules.

    A diffusers pipeline: folders, device moves, offload of whole models and progress bars work as there. Without a
    motion adapter each frame is a picture of its own.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    # They run beside the U-Net in every step.
    _exclude_from_cpu_offload = ["keyframe_control", "sketch_control"]
    _optional_components = ["motion_adapter", "keyframe_control", "sketch_control", "text_encoder_2", "tokenizer_2"]

    def __init__(  # noqa: PLR0913, PLR0917  # diffusers makes a pipeline of its parts by these names
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet3DConditionModel | UNet2DConditionModel,
        scheduler: SchedulerMixin,
        motion_adapter: MotionAdapter | None = None,
        keyframe_control: SparseControlModel | None = None,
        sketch_control: SparseControlModel | None = None,
        default_steps: int = 25,
        default_guidance: float = 7.5,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: PreTrainedTokenizerBase | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        """Assemble from parts; an image U-Net is turned into a video one, sharing its weights.

        `default_steps` and `default_guidance` are what a call uses when it names none; they are saved with the model.
        `text_encoder_2` and `tokenizer_2` are of Stable Diffusion XL, and so is `force_zeros_for_empty_prompt`: without
        a negative prompt, its text states are zeros instead of those of an empty text.

        Raises:
            ConfigError: the adapter, the text encoders or a SparseCtrl do not fit the U-Net.
        """
        super().__init__()
        if isinstance(unet, UNet2DConditionModel):
            unet = UNet3DConditionModel.from_unet2d(unet)
        check_channels(unet, vae)
        check_text_encoders(unet, text_encoder, text_encoder_2, tokenizer_2)
        is_sdxl = text_encoder_2 is not None
        refuse_on_sdxl(is_sdxl, keyframe_control=keyframe_control, sketch_control=sketch_control)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            motion_adapter=unet.motion_adapter,
            keyframe_control=keyframe_control,
            sketch_control=sketch_control,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )
        if motion_adapter is not None:
            self.set_motion_adapter(motion_adapter)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)
        if is_sdxl:
            self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # diffusers' takes any keyword; here they are known
        cls, model: str | os.PathLike[str], torch_dtype: torch.dtype = torch.float32, **components: Any
    ) -> AnimateDiffPipeline:
        """Load a folder (or shipped model, or hub id); parts given by keyword are used instead of the folder's.

        The folder may be a pipeline of Stable Diffusion 1.5 or XL; then give `motion_adapter`, or the frames stay
        stills, and a scheduler of the noise levels that it was trained on (`make_scheduler("ddim")` for 1.5), or let
        `load_pipeline` choose it.

        Raises:
            CheckpointError: a part is missing, damaged, of another class, or does not fit its config.
            ConfigError: a keyword that is not a part of this pipeline.
        """
        folder = locate_model(model)
        index = parts.read_model_index(folder)
        names = {"vae", "text_encoder", "tokenizer", "unet", "scheduler", *cls._optional_components}
        if unknown := sorted(components.keys() - names):
            raise ConfigError(
                f"{', '.join(unknown)} is no part of this pipeline; its parts: {', '.join(sorted(names))}."
            )
        loaders = part_loaders(folder, index, torch_dtype)
        loaded = {name: components[name] if name in components else load() for name, load in loaders.items()}
        saved = ("default_steps", "default_guidance", "force_zeros_for_empty_prompt")
        settings = {key: index[key] for key in saved if key in index}
        pipeline = cls(**{**components, **loaded}, **settings)
        pipeline.remember_parts(None if components else str(model))
        return pipeline

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a folder that `from_pretrained` reads: the image U-Net and the motion adapter lie side by side."""
        adapter = self.remove_motion_adapter()
        try:
            self.register_modules(motion_adapter=adapter)
            with self._without_image_prompt_adapter():
                super().save_pretrained(
                    save_directory, safe_serialization, variant, max_shard_size, push_to_hub, use_flashpack, **kwargs
                )
        finally:
            if adapter is not None:
                self.set_motion_adapter(adapter)

    def set_motion_adapter(self, adapter: MotionAdapter) -> None:
        """Attach an adapter in place of the present one; it is moved to the device and precision of the U-Net."""
        self.check_motion_loras(adapter)
        for module in adapter.children():  # `adapter.to` of diffusers would log a warning about nothing
            module.to(self.unet.device, self.unet.dtype)
        self.unet.set_motion_adapter(adapter)
        self.register_modules(motion_adapter=adapter)

    def set_sparse_control(self, model: SparseControlModel) -> None:
        """Take a SparseCtrl for keyframes ("rgb") or for sketches ("scribble"), as its kind says.

        It is moved to the device and precision of the U-Net.

        Raises:
            ConfigError: the pipeline is Stable Diffusion XL, which there is no SparseCtrl for.
        """
        refuse_on_sdxl(self.is_sdxl, **{f"a SparseCtrl ({model.kind})": model})
        nn.Module.to(model, self._execution_device, self.unet.dtype)
        name = "keyframe_control" if model.kind == "rgb" else "sketch_control"
        self.register_modules(**{name: model})

    def remove_motion_adapter(self) -> MotionAdapter | None:
        """Take the adapter off; what is left draws independent stills."""
        adapter = self.unet.remove_motion_adapter()
        self.register_modules(motion_adapter=None)
        return adapter

    @property
    def is_sdxl(self) -> bool:
        """Whether this is Stable Diffusion XL, which has two text encoders and is told sizes."""
        return self.text_encoder_2 is not None

    @property
    def scale_factors(self) -> ScaleFactors:
        """Pixels per latent, as the VAE has it."""
        return ScaleFactors(spatial=2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  # the one place where everything a user can ask for comes together
        self,
        prompt: Prompt | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        *,
        plain_prompt: bool = False,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        keyframes: Mapping[int, Picture] | None = None,
        sketches: Mapping[int, Picture] | None = None,
        control_strength: float = 1.0,
        control_start: float = 0.0,
        control_end: float = 1.0,
        init_video: SourceVideo | None = None,
        strength: float | None = None,
        controls: Sequence[DenseControl] = (),
        image_prompt: Picture | Sequence[Picture] | None = None,
        image_prompt_strength: float = 1.0,
        windows: WindowSettings | None = None,
        free_noise: bool = False,
        free_init: FreeInit | None = None,
        positions: Positions = "plain",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        num_videos_per_prompt: int = 1,
        scheduler: str | None = None,
        eta: float = 0.0,
        motion_strength: float | Sequence[float] = 1.0,
        motion_condition: Tensor | None = None,
        batched_guidance: bool = True,
        fps: float | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        original_size: Size | None = None,
        crops_coords_top_left: Size = (0, 0),
        target_size: Size | None = None,
        negative_original_size: Size | None = None,
        negative_crops_coords_top_left: Size = (0, 0),
        negative_target_size: Size | None = None,
        output_type: OutputType = "video",
        callback_on_step_end: StepCallback | None = None,
    ) -> Any:
        """Generate.

        Args:
            prompt: one, or a list; each gives `num_videos_per_prompt` videos. Or prompts by frame, as in
                `{0: "a red circle", 32: "a blue circle"}`, for one video that travels from each to the next.
            negative_prompt: what not to show; one for all, or one for each prompt.
            plain_prompt: read brackets, tags and names of embeddings in them as words.
            num_frames: by default 16, or all of a shorter source or control video; with `windows` all of a longer one.
            height: in pixels, a multiple of `scale_factors.spatial`; by default as many pixels as the model was trained
                at, in the shape of a source or control video.
            width: likewise.
            keyframes: pictures by frame, negative indexes from the end, for a SparseCtrl for pictures: `{0: a}`
                animates a picture, `{0: a, -1: b}` goes from one to another. Of the aspect ratio of the video.
            sketches: drawings by frame likewise, white lines on black, for a SparseCtrl for drawings.
            control_strength: how much keyframes and sketches count.
            control_start: from which share of the steps on they do, 0 to 1.
            control_end: until which share of the steps.
            init_video: a video to start from (`uint8 [f, h, w, 3]` too); its first `num_frames` frames are used.
            strength: with `init_video`, the share of the noise levels that is run through, 0 to 1: how far it may
                change; 0.8 by default.
            controls: ControlNets, each with a picture for every frame.
            image_prompt: a picture, or several, to take subject and style from beside the text, for an adapter loaded
                with `load_image_prompt_adapter`; the square in its middle is seen. The same for all videos of the call.
            image_prompt_strength: how much it counts beside the text; 0 is the text alone.
            windows: for videos longer than the motion modules know: the U-Net sees some frames at a time. Memory is
                that of one window.
            free_noise: with `windows`, noise that repeats from window to window, so that they agree.
            free_init: denoise several times, each time keeping the low frequencies of the last result.
            positions: "stretched" draws the frames' positions in time together into the range that the motion modules
                were trained on, "capped" holds the last of them; "plain" counts on.
            num_inference_steps: denoising steps; by default the model's.
            guidance_scale: how strongly the prompt is followed; 1 turns guidance off; by default the model's.
            seed: of the first video; video number i uses `seed + i`. By default random. Same seed, same start on any
                device.
            num_videos_per_prompt: videos of each prompt.
            scheduler: another solver by name (see `sampling.scheduler_names()`), with the model's noise schedule.
            eta: of DDIM, 0 is deterministic; other solvers that do not know it refuse it.
            motion_strength: scales what the motion modules add, one number or one a frame; 0 gives independent stills.
            motion_condition: a description of the motion wanted, `[b, d]` or `[1, d]` for all, for motion modules of a
                kind that reads one. Guidance does not change it: both its branches are told the same.
            batched_guidance: both branches of guidance at once, or one after the other in half the memory.
            fps: frames per second of the result; changes playback only. By default those of a source or control video,
                or 8.
            latents: start from these instead of noise, `[b, c, f, h, w]` of unit variance.
            prompt_embeds: text states `[b, n, d]` instead of prompts.
            negative_prompt_embeds: likewise; both as long as each other.
            pooled_prompt_embeds: of SDXL, each prompt as one vector `[b, d]`; goes with `prompt_embeds`.
            negative_pooled_prompt_embeds: likewise.
            original_size: of SDXL, (height, width) in pixels of the picture that frames shall look like one of; by
                default the size of the video.
            crops_coords_top_left: likewise, from where (top, left) it was cut out.
            target_size: likewise, the (height, width) it was brought to; by default the size of the video.
            negative_original_size: of what frames shall not look like; by default as of what they shall.
            negative_crops_coords_top_left: likewise.
            negative_target_size: likewise; goes with `negative_original_size`.
            output_type: "video" gives a `Video` for a single prompt text, else a list of them; "pil" a list of pictures
                for each video; "np" `[b, f, h, w, c]` and "pt" `[b, f, c, h, w]` in [0, 1]; "latent" `[b, c, f, h, w]`.
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": ...}); may return replaced latents.

        Raises:
            ConfigError: an empty prompt list, a value out of range, or one that would have no effect.
            ShapeError: fewer than one frame, or a size the VAE cannot take (names the nearest it can).
            NonFiniteError: values became NaN, infinite or all zero; names the step and the first layer.
        """
        self._interrupt = False
        sources = sources_of(init_video, [each.frames for each in controls])
        pixels, rate = follow(
            (num_frames, height, width), fps, sources, usual_of(self.unet, self.scale_factors, windows)
        )
        num_frames = pixels.num_frames
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
        guided = common.guidance_scale != 1.0
        choices = SamplingChoices(windows, free_noise, free_init, positions)
        share = check_source(init_video, strength)
        shape = self.scale_factors.latent_shape(pixels, self.unet.in_channels)
        adapter = self.unet.motion_adapter
        has_motion = adapter is not None
        knows_positions = adapter is not None and adapter.trained_frames is not None
        choices.check(num_frames, init_video is not None, latents is not None, knows_positions)
        pooled_width = self.text_encoder_2.config.projection_dim if self.is_sdxl else None
        states = GivenStates(prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds)
        words = read_words(prompt, negative_prompt, states, num_frames, guided, pooled_width)
        texts = words.texts(negative_prompt, plain_prompt, self._embeddings_by_name())
        tagged = self._named_loras(texts.loras)
        sizes = SizeChoices(
            original_size,
            crops_coords_top_left,
            target_size,
            negative_original_size,
            negative_crops_coords_top_left,
            negative_target_size,
        )
        sizes.check(self.is_sdxl, guided)
        refuse_on_sdxl(self.is_sdxl, keyframes=keyframes, sketches=sketches, controls=controls)
        solver = self._solver(scheduler, common.steps)
        timesteps = timesteps_of(solver, share)
        influence = Influence.during(control_strength, control_start, control_end, timesteps)
        influences = (control_strength, control_start, control_end) == (1.0, 0.0, 1.0)
        require(
            {
                "control_strength, control_start and control_end are about keyframes and sketches; give some.": (
                    keyframes is not None or sketches is not None or influences
                ),
                "Without motion modules, motion_strength has no effect; leave it out.": (
                    has_motion or motion_strength in (0, 1)
                ),
            }
        )
        sparse = sparse_controls(
            {"keyframes": self.keyframe_control, "sketches": self.sketch_control},
            {"keyframes": keyframes, "sketches": sketches},
            pixels,
            influence,
            self.vae,
            lambda trained: choices.frame_positions(num_frames, trained),
        )
        place_controls(controls, self.unet, self._execution_device)
        task = Task(
            shape,
            choices,
            [*sparse, *dense_controls(controls, pixels, timesteps)],
            None if init_video is None else source_frames(init_video, pixels),
            strengths_by_frame(motion_strength, num_frames),
            motion_condition,
        )
        if free_init is not None:
            acting = [each.influence for each in task.controls if each.influence.strength != 0]
            free_init.check_levels(solver, common.steps, [(each.lowest, each.highest) for each in acting])
        pictures = self._prompt_pictures(image_prompt, image_prompt_strength)
        unrecorded = {
            "init_video": init_video,
            "controls": controls or None,
            "image_prompt": image_prompt,
            "keyframes": keyframes,
            "sketches": sketches,
            "motion_condition": motion_condition,
            "latents": latents,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            **dict.fromkeys(sizes.given(), True),
            "callback_on_step_end": callback_on_step_end,
        }
        own = {
            "prompt": words.record,
            "negative_prompt": negative_prompt,
            "plain_prompt": plain_prompt,
            "embeddings": texts.embeddings,
            "num_frames": num_frames,
            "height": pixels.height,
            "width": pixels.width,
            "strength": None if init_video is None else share,
            "image_prompt_strength": None if image_prompt is None else image_prompt_strength,
            "control_strength": None if influences else control_strength,
            "control_start": None if influences else control_start,
            "control_end": None if influences else control_end,
            **choices.record(),
        }
        with self._weighing(tagged):
            encoded = words.given or self._encode(texts, guided)
            if words.frames is not None:
                encoded = travelled_prompts(encoded, words.frames, num_frames)
            encoded = encoded.on(self._execution_device, self.unet.dtype).repeated(num_videos_per_prompt)
            text = text_conditions(encoded, sizes.sizes(pixels.height, pixels.width))
            image = self._image_conditions(pictures, image_prompt_strength, text.count, guided)
            result = self._make(task, common, text, image, solver, timesteps, latents)
            request = self._request(common, own, unrecorded)
        videos = self._finish(result, common, request, self._decode)
        single = isinstance(prompt, (str, Mapping)) and num_videos_per_prompt == 1 and output_type == "video"
        return videos[0] if single else videos

    @property
    def backbone(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def _encode(self, texts: Texts, guided: bool) -> EncodedPrompts:
        first = (self.tokenizer, self.text_encoder)
        second = (self.tokenizer_2, self.text_encoder_2) if self.is_sdxl else None
        return encode_texts(texts, first, second, guided, self.config.get("force_zeros_for_empty_prompt", False))

    def _decode(self, latents: Tensor, _index: int) -> Iterator[Tensor]:
        with self._precise_vae():
            yield from decode_frames(self.vae, latents)

    def _precise_vae(self) -> AbstractContextManager[None]:
        is_slow = self.vae.device.type == "cpu" and not multiplies(self.vae.dtype)
        return in_float32(self.vae, is_slow or (self.is_sdxl and self.vae.config["force_upcast"]))

    def _make(
        self,
        task: Task,
        common: CommonSettings,
        text: TextConditions,
        image: ImageConditions,
        solver: Scheduler,
        timesteps: Tensor,
        latents: Tensor | None,
    ) -> Tensor:
        choices = task.choices
        generators = video_generators(common.seed, text.count)
        noise = self._start(choices.noise(generators, task.shape), latents)
        denoiser = task.denoiser(self.unet, text, image, common, self._execution_device)
        options = step_options(solver, common.eta, generators)

        def run(start: Tensor, levels: Tensor) -> Tensor:
            before = denoiser.before_step(levels)
            return self._denoise(denoiser.guidance, solver, start, options, common.callback, levels, before)

        if choices.free_init is None:
            return run(self._begin(noise, task.source, solver, timesteps), timesteps)
        return denoise_repeatedly(
            choices.free_init, run, solver, noise, generators, common.steps, lambda: self._interrupt
        )

    def _begin(self, noise: Tensor, source: np.ndarray | None, solver: Scheduler, timesteps: Tensor) -> Tensor:
        if source is None:
            return noise * float(solver.init_noise_sigma)
        with self._precise_vae():
            clean = encode_source(self.vae, source, self._execution_device).expand_as(noise)
        return solver.add_noise(clean, noise, timesteps[:1].expand(len(noise)))
