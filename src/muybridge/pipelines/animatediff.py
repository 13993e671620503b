"""AnimateDiff: a Stable Diffusion model and a motion adapter, from a prompt to a video."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.checkpoints import parts
from muybridge.checkpoints.locate import locate_model
from muybridge.conditioning import EncodedPrompts, Picture, check_travel, encode_prompts, travelled
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter
from muybridge.pipelines.animatediff_conditions import (
    Control,
    ControlledUNet,
    check_source,
    dense_controls,
    encode_frames,
    read_sparse_control,
    source_frames,
    sparse_control,
)
from muybridge.pipelines.animatediff_sampling import Positions, SamplingChoices, Task, strengths_by_frame
from muybridge.pipelines.base import (
    CommonSettings,
    OutputType,
    StepCallback,
    check_prompts,
    negative_list,
    prompt_list,
    require,
    step_options,
    timesteps_of,
)
from muybridge.pipelines.controls import DenseControl, Influence
from muybridge.pipelines.decoding import decode_frames
from muybridge.pipelines.image_prompt import ImageConditions, ImagePromptHost
from muybridge.sampling import (
    ContextWindows,
    FreeInit,
    Guidance,
    Scheduler,
    WindowSettings,
    denoise_repeatedly,
    video_generators,
)
from muybridge.types import LatentShape, ScaleFactors, VideoShape
from muybridge.video import Video


class AnimateDiffPipeline(ImagePromptHost):
    """Text to video with a Stable Diffusion U-Net that holds motion modules.

    A diffusers pipeline: folders, device moves, offload of whole models and progress bars work as there. Without a
    motion adapter each frame is a picture of its own.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    # They run beside the U-Net in every step.
    _exclude_from_cpu_offload = ["keyframe_control", "sketch_control"]
    _optional_components = ["motion_adapter", "keyframe_control", "sketch_control"]

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
    ) -> None:
        """Assemble from parts; an image U-Net is turned into a video one, sharing its weights.

        `default_steps` and `default_guidance` are what a call uses when it names none; they are saved with the model.

        Raises:
            ConfigError: the adapter does not fit the U-Net.
        """
        super().__init__()
        if isinstance(unet, UNet2DConditionModel):
            unet = UNet3DConditionModel.from_unet2d(unet)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            motion_adapter=unet.motion_adapter,
            keyframe_control=keyframe_control,
            sketch_control=sketch_control,
        )
        if motion_adapter is not None:
            self.set_motion_adapter(motion_adapter)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)
        self.motion_adapter_name: str | None = None
        self.parts_from: str | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]  # diffusers' takes any keyword; here they are known
        cls, model: str | os.PathLike[str], torch_dtype: torch.dtype = torch.float32, **components: Any
    ) -> AnimateDiffPipeline:
        """Load a folder (or shipped model, or hub id); parts given by keyword are used instead of the folder's.

        The folder may be a Stable Diffusion 1.5 pipeline; then give `motion_adapter`, or the frames stay stills, and
        `scheduler=make_scheduler("ddim")`, as AnimateDiff was trained on other noise levels.

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
        loaders: dict[str, Callable[[], Any]] = {
            "vae": lambda: parts.load_vae(folder, torch_dtype),
            "text_encoder": lambda: parts.load_text_encoder(folder, torch_dtype),
            "tokenizer": lambda: parts.load_tokenizer(folder, index),
            "unet": lambda: parts.load_unet(folder, torch_dtype),
            "scheduler": lambda: parts.load_scheduler(folder, index),
        }
        if index.get("motion_adapter") not in (None, [None, None]):
            loaders["motion_adapter"] = lambda: parts.load_motion_adapter(folder, torch_dtype)
        for name in ("keyframe_control", "sketch_control"):
            if index.get(name) not in (None, [None, None]):
                loaders[name] = partial(read_sparse_control, parts.part_folder(folder, name), torch_dtype)
        loaded = {name: components[name] if name in components else load() for name, load in loaders.items()}
        settings = {key: index[key] for key in ("default_steps", "default_guidance") if key in index}
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
        """
        nn.Module.to(model, self._execution_device, self.unet.dtype)
        name = "keyframe_control" if model.kind == "rgb" else "sketch_control"
        self.register_modules(**{name: model})

    def remove_motion_adapter(self) -> MotionAdapter | None:
        """Take the adapter off; what is left draws independent stills."""
        adapter = self.unet.remove_motion_adapter()
        self.register_modules(motion_adapter=None)
        return adapter

    @property
    def scale_factors(self) -> ScaleFactors:
        """Pixels per latent, as the VAE has it."""
        return ScaleFactors(spatial=2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  # the one place where everything a user can ask for comes together
        self,
        prompt: str | Sequence[str] | Mapping[int, str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        *,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        keyframes: Mapping[int, Picture] | None = None,
        sketches: Mapping[int, Picture] | None = None,
        control_strength: float = 1.0,
        control_start: float = 0.0,
        control_end: float = 1.0,
        init_video: Video | np.ndarray | None = None,
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
        batched_guidance: bool = True,
        fps: float = 8.0,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: OutputType = "video",
        callback_on_step_end: StepCallback | None = None,
    ) -> Any:
        """Generate.

        Args:
            prompt: one, or a list; each gives `num_videos_per_prompt` videos. Or prompts by frame, as in
                `{0: "a red circle", 32: "a blue circle"}`, for one video that travels from each to the next.
            negative_prompt: what not to show; one for all, or one for each prompt.
            num_frames: frames of the video.
            height: in pixels, a multiple of `scale_factors.spatial`; by default what the model was trained at.
            width: likewise.
            keyframes: pictures by frame, negative indexes from the end, for a SparseCtrl for pictures: `{0: a}`
                animates a picture, `{0: a, -1: b}` goes from one to another. Of the aspect ratio of the video.
            sketches: drawings by frame likewise, white lines on black, for a SparseCtrl for drawings.
            control_strength: how much keyframes and sketches count.
            control_start: from which share of the steps on they do, 0 to 1.
            control_end: until which share of the steps.
            init_video: a video to start from (`uint8 [f, h, w, 3]` too), stretched to the size; its first `num_frames`
                frames are used.
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
            batched_guidance: both branches of guidance at once, or one after the other in half the memory.
            fps: frames per second of the result; changes playback only.
            latents: start from these instead of noise, `[b, c, f, h, w]` of unit variance.
            prompt_embeds: text states `[b, n, d]` instead of prompts.
            negative_prompt_embeds: likewise; both as long as each other.
            output_type: "video" gives a `Video` for a single prompt text, else a list of them; "pil" a list of pictures
                for each video; "np" `[b, f, h, w, c]` and "pt" `[b, f, c, h, w]` in [0, 1]; "latent" `[b, c, f, h, w]`.
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": ...}); may return replaced latents.

        Raises:
            ConfigError: an empty prompt list, a value out of range, or one that would have no effect.
            ShapeError: fewer than one frame, or a size the VAE cannot take (names the nearest it can).
            NonFiniteError: values became NaN, infinite or all zero; names the step and the first layer.
        """
        self._interrupt = False
        common = self._common(
            num_inference_steps,
            guidance_scale,
            seed,
            num_videos_per_prompt=num_videos_per_prompt,
            scheduler=scheduler,
            eta=eta,
            motion_strength=motion_strength,
            fps=fps,
            output_type=output_type,
            batched_guidance=batched_guidance,
            callback=callback_on_step_end,
        )
        choices = SamplingChoices(windows, free_noise, free_init, positions)
        share = check_source(init_video, strength)
        shape = self._latent_shape(num_frames, height, width)
        pixels = self._pixel_shape(shape)
        adapter = self.unet.motion_adapter
        has_motion = adapter is not None
        knows_positions = adapter is not None and adapter.trained_frames is not None
        choices.check(num_frames, init_video is not None, latents is not None, knows_positions)
        travel = dict(prompt) if isinstance(prompt, Mapping) else None
        if travel is not None:
            check_travel(travel, num_frames)
        prompts = prompt_list(cast("Any", prompt)) if travel is None else list(travel.values())
        given = None if prompt_embeds is None else EncodedPrompts(prompt_embeds, negative_prompt_embeds)
        check_prompts(prompts, negative_prompt, given, negative_prompt_embeds, common.guidance_scale != 1.0)
        solver = self._solver(scheduler, common.steps)
        timesteps = timesteps_of(solver, share)
        influence = Influence.during(control_strength, control_start, control_end, timesteps)
        pinned = {"rgb": keyframes, "scribble": sketches}
        is_pinned = any(each is not None for each in pinned.values())
        influences = (control_strength, control_start, control_end) == (1.0, 0.0, 1.0)
        require(
            {
                "control_strength, control_start and control_end are about keyframes and sketches; give some.": (
                    is_pinned or influences
                ),
                "Without motion modules, motion_strength has no effect; leave it out.": (
                    has_motion or motion_strength in (0, 1)
                ),
                "Prompts by frame have one negative prompt for all; give one.": (
                    travel is None or negative_prompt is None or isinstance(negative_prompt, str)
                ),
            }
        )
        sparse = self._sparse_controls(pinned, pixels, influence, choices)
        for each in controls:  # no parts of the pipeline, which would move with it
            nn.Module.to(each.model, self._execution_device)
        task = Task(
            shape,
            choices,
            [*sparse, *dense_controls(controls, pixels, timesteps)],
            None if init_video is None else source_frames(init_video, pixels),
            strengths_by_frame(motion_strength, num_frames),
        )
        pictures = self._prompt_pictures(image_prompt, image_prompt_strength)
        encoded = given or self._encode(prompts or [], negative_prompt, common.guidance_scale != 1.0)
        if travel is not None:
            encoded = _travelled(encoded, list(travel), num_frames)
        encoded = encoded.on(self._execution_device, self.unet.dtype).repeated(num_videos_per_prompt)
        image = self._image_conditions(
            pictures, image_prompt_strength, len(encoded.positive), common.guidance_scale != 1.0
        )
        result = self._make(task, common, encoded, image, solver, timesteps, latents)
        unrecorded = {
            "init_video": init_video,
            "controls": controls or None,
            "image_prompt": image_prompt,
            "keyframes": keyframes,
            "sketches": sketches,
            "latents": latents,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "callback_on_step_end": callback_on_step_end,
        }
        own = {
            "motion_adapter": self.motion_adapter_name,
            "parts_from": self.parts_from,
            "prompt": prompts if travel is None else [travel],
            "negative_prompt": negative_prompt,
            "num_frames": num_frames,
            "height": pixels.height,
            "width": pixels.width,
            "strength": None if init_video is None else share,
            **choices.record(),
        }
        request = self._request(common, own, unrecorded)
        videos = self._finish(result, common, request, lambda each, _index: decode_frames(self.vae, each))
        single = isinstance(prompt, (str, Mapping)) and num_videos_per_prompt == 1 and output_type == "video"
        return videos[0] if single else videos

    @property
    def backbone(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def _encode(self, prompts: list[str], negative: str | Sequence[str] | None, guided: bool) -> EncodedPrompts:
        negatives = negative_list(negative, len(prompts)) if guided else None
        return encode_prompts(self.tokenizer, self.text_encoder, prompts, negatives)

    def _latent_shape(self, num_frames: int, height: int | None, width: int | None) -> LatentShape:
        if height is None or width is None:
            sample_size = self.unet.config["sample_size"]
            if not isinstance(sample_size, int):
                raise ConfigError("This model does not say at which size it was trained; give height and width.")
            size = sample_size * self.scale_factors.spatial
            height, width = size if height is None else height, size if width is None else width
        return self.scale_factors.latent_shape(VideoShape(num_frames, height, width), self.unet.in_channels)

    def _make(
        self,
        task: Task,
        common: CommonSettings,
        encoded: EncodedPrompts,
        image: ImageConditions,
        solver: Scheduler,
        timesteps: Tensor,
        latents: Tensor | None,
    ) -> Tensor:
        count, choices = encoded.positive.shape[0], task.choices
        generators = video_generators(common.seed, count)
        noise = self._start(choices.noise(generators, task.shape), latents)
        shown = task.conditions(count, self._execution_device, self.unet.dtype)
        settings = {**self._unet_settings(task, common), **image.settings}
        network = ControlledUNet(self.unet, settings, task.controls)
        positive = {"encoder_hidden_states": encoded.positive, **shown, **image.positive}
        negative = (
            None if encoded.negative is None else {"encoder_hidden_states": encoded.negative, **shown, **image.negative}
        )
        windowed = choices.windowed(network, positive)
        guidance = Guidance(windowed, positive, negative, common.guidance_scale, common.batched_guidance)
        options = step_options(solver, common.eta, generators)

        def run(start: Tensor, levels: Tensor) -> Tensor:
            def before_step(index: int) -> None:
                network.begin_step(float(levels[index]))
                if isinstance(windowed, ContextWindows):
                    windowed.begin_step(index)

            return self._denoise(guidance, solver, start, options, common.callback, levels, before_step)

        if choices.free_init is None:
            return run(self._begin(noise, task.source, solver, timesteps), timesteps)
        return denoise_repeatedly(
            choices.free_init, run, solver, noise, generators, common.steps, lambda: self._interrupt
        )

    def _unet_settings(self, task: Task, common: CommonSettings) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if task.strength_by_frame is None:
            settings["motion_strength"] = common.motion_strength
        if (adapter := self.unet.motion_adapter) is not None and adapter.trained_frames is not None:
            frames = task.shape.num_latent_frames
            settings["frame_positions"] = task.choices.frame_positions(frames, adapter.trained_frames)
        return settings

    def _begin(self, noise: Tensor, source: np.ndarray | None, solver: Scheduler, timesteps: Tensor) -> Tensor:
        if source is None:
            return noise * float(solver.init_noise_sigma)
        clean = encode_frames(self.vae, source, self._execution_device).expand_as(noise)
        return solver.add_noise(clean, noise, timesteps[:1].expand(len(noise)))

    def _sparse_controls(
        self,
        given: Mapping[str, Mapping[int, Picture] | None],
        shape: VideoShape,
        influence: Influence,
        choices: SamplingChoices,
    ) -> list[Control]:
        models = {"rgb": self.keyframe_control, "scribble": self.sketch_control}
        found = []
        for kind, pictures in given.items():
            if pictures is None:
                continue
            if (model := models[kind]) is None:
                what = "keyframes" if kind == "rgb" else "sketches"
                raise ConfigError(
                    f"This pipeline has no SparseCtrl for {what}; give it one with pipe.set_sparse_control(model), or "
                    "name its file."
                )
            adapter = model.motion_adapter
            trained = None if adapter is None else adapter.trained_frames
            positions = None if trained is None else choices.frame_positions(shape.num_frames, trained)
            found.append(sparse_control(model, pictures, shape, influence, self.vae, positions))
        return found

    def _pixel_shape(self, shape: LatentShape) -> VideoShape:
        factor = self.scale_factors.spatial
        return VideoShape(shape.num_latent_frames, shape.height * factor, shape.width * factor)


def _travelled(encoded: EncodedPrompts, frames: list[int], num_frames: int) -> EncodedPrompts:
    negative = encoded.negative
    return EncodedPrompts(
        travelled(encoded.positive, frames, num_frames),
        None if negative is None else travelled(negative, frames, num_frames),
    )
