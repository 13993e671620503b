"""AnimateDiff: a Stable Diffusion model and a motion adapter, from a prompt to a video."""

from __future__ import annotations

import inspect
import math
import operator
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from muybridge import __version__
from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.checkpoints import parts
from muybridge.checkpoints.locate import locate_model
from muybridge.conditioning import EncodedPrompts, encode_prompts
from muybridge.debug import first_anomalous_module
from muybridge.errors import ConfigError, ShapeError
from muybridge.motion import MotionAdapter
from muybridge.pipelines.decoding import decode_frames, to_uint8
from muybridge.sampling import Guidance, Scheduler, StepReport, denoise, draw_noise, make_scheduler, video_generators
from muybridge.types import LatentShape, ScaleFactors, VideoShape
from muybridge.video import Video
from muybridge.video.value import MAX_FPS, MIN_FPS

OutputType = Literal["video", "pil", "np", "pt", "latent"]
StepCallback = Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]
_OUTPUT_TYPES = ("video", "pil", "np", "pt", "latent")


class AnimateDiffPipeline(DiffusionPipeline):
    """Text to video with a Stable Diffusion U-Net that holds motion modules.

    A diffusers pipeline: folders, device moves, offload of whole models and progress bars work as there. Without a
    motion adapter each frame is a picture of its own.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["motion_adapter"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet3DConditionModel | UNet2DConditionModel,
        scheduler: SchedulerMixin,
        motion_adapter: MotionAdapter | None = None,
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
        )
        if motion_adapter is not None:
            self.set_motion_adapter(motion_adapter)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)
        self.model_name: str | None = None
        self.motion_adapter_name: str | None = None
        self._named_adapter = self.unet.motion_adapter
        self._interrupt = False

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
        names = {"vae", "text_encoder", "tokenizer", "unet", "scheduler", "motion_adapter"}
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
        loaded = {name: components[name] if name in components else load() for name, load in loaders.items()}
        settings = {key: index[key] for key in ("default_steps", "default_guidance") if key in index}
        pipeline = cls(**{**components, **loaded}, **settings)
        pipeline.model_name = None if components else str(model)
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
            super().save_pretrained(
                save_directory, safe_serialization, variant, max_shard_size, push_to_hub, use_flashpack, **kwargs
            )
        finally:
            if adapter is not None:
                self.set_motion_adapter(adapter)

    def set_motion_adapter(self, adapter: MotionAdapter) -> None:
        """Attach an adapter in place of the present one; it is moved to the device and precision of the U-Net."""
        for module in adapter.children():  # `adapter.to` of diffusers would log a warning about nothing
            module.to(self.unet.device, self.unet.dtype)
        self.unet.set_motion_adapter(adapter)
        self.register_modules(motion_adapter=adapter)

    def remove_motion_adapter(self) -> MotionAdapter | None:
        """Take the adapter off; what is left draws independent stills."""
        adapter = self.unet.remove_motion_adapter()
        self.register_modules(motion_adapter=None)
        return adapter

    @property
    def scale_factors(self) -> ScaleFactors:
        """Pixels per latent, as the VAE has it."""
        return ScaleFactors(spatial=2 ** (len(self.vae.config["block_out_channels"]) - 1))

    def interrupt(self) -> None:
        """Stop the running call after the present step; what there is then is decoded and returned."""
        self._interrupt = True

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  # the one place where everything a user can ask for comes together
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        *,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        num_videos_per_prompt: int = 1,
        scheduler: str | None = None,
        eta: float = 0.0,
        motion_strength: float = 1.0,
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
            prompt: one, or a list; each gives `num_videos_per_prompt` videos.
            negative_prompt: what not to show; one for all, or one for each prompt.
            num_frames: frames of the video.
            height: in pixels, a multiple of `scale_factors.spatial`; by default what the model was trained at.
            width: likewise.
            num_inference_steps: denoising steps; by default the model's.
            guidance_scale: how strongly the prompt is followed; 1 turns guidance off; by default the model's.
            seed: of the first video; video number i uses `seed + i`. By default random. Same seed, same start on any
                device.
            num_videos_per_prompt: videos of each prompt.
            scheduler: another solver by name (see `sampling.scheduler_names()`), with the model's noise schedule.
            eta: of DDIM, 0 is deterministic; other solvers that do not know it refuse it.
            motion_strength: scales what the motion modules add; 0 gives independent stills.
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
        steps = self.config["default_steps"] if num_inference_steps is None else num_inference_steps
        scale = self.config["default_guidance"] if guidance_scale is None else guidance_scale
        seed = secrets.randbelow(2**31) if seed is None else operator.index(seed)
        _require(
            {
                f"num_inference_steps must be at least 1; given {steps}.": steps >= 1,
                f"guidance_scale must be between 0 and 1000; given {scale}.": 0 <= scale < 1000,
                f"num_videos_per_prompt must be at least 1; given {num_videos_per_prompt}.": num_videos_per_prompt >= 1,
                f"seed must be between 0 and 2**63 - 1; given {seed}.": 0 <= seed < 2**63,
                f"eta must be between 0 and 1; given {eta}.": 0 <= eta <= 1,
                f"motion_strength must be a finite number; given {motion_strength}.": math.isfinite(motion_strength),
                f"fps must be between {MIN_FPS:g} and {MAX_FPS:g}; given {fps}.": MIN_FPS <= fps <= MAX_FPS,
                f"output_type must be one of {_OUTPUT_TYPES}; given {output_type!r}.": output_type in _OUTPUT_TYPES,
            }
        )
        shape = self._latent_shape(num_frames, height, width)
        prompts = [prompt] if isinstance(prompt, str) else None if prompt is None else list(prompt)
        encoded = self._encode(prompts, negative_prompt, prompt_embeds, negative_prompt_embeds, scale != 1.0)
        encoded = _repeat(encoded, num_videos_per_prompt)
        solver = self._solver(scheduler, steps)
        generators = video_generators(seed, encoded.positive.shape[0])
        start = self._start(draw_noise(generators, shape), latents) * float(solver.init_noise_sigma)
        guidance = Guidance(
            self._predictor(motion_strength), encoded.positive, encoded.negative, scale, batched_guidance
        )
        result = self._denoise(guidance, solver, start, _step_options(solver, eta, generators), callback_on_step_end)
        unrecorded = {
            "latents": latents,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "callback_on_step_end": callback_on_step_end,
            "another motion adapter": None if self.unet.motion_adapter is self._named_adapter else True,
        }
        request = {
            "model": self.model_name,
            "motion_adapter": self.motion_adapter_name,
            "prompt": prompts,
            "negative_prompt": negative_prompt,
            "num_frames": num_frames,
            "height": shape.height * self.scale_factors.spatial,
            "width": shape.width * self.scale_factors.spatial,
            "num_inference_steps": steps,
            "guidance_scale": scale,
            "scheduler": scheduler,
            "eta": eta,
            "motion_strength": motion_strength,
            "fps": fps,
            "dtype": str(self.unet.dtype).removeprefix("torch."),
            "versions": {"muybridge": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
            "interrupted": self._interrupt,
            "unrecorded": [name for name, value in unrecorded.items() if value is not None],
        }
        videos = self._finish(result, output_type, request, seed, num_videos_per_prompt)
        single = isinstance(prompt, str) and num_videos_per_prompt == 1 and output_type == "video"
        return videos[0] if single else videos

    def _encode(
        self,
        prompts: list[str] | None,
        negative: str | Sequence[str] | None,
        prompt_embeds: Tensor | None,
        negative_embeds: Tensor | None,
        guided: bool,
    ) -> EncodedPrompts:
        _check_prompts(prompts, negative, prompt_embeds, negative_embeds, guided)
        if prompt_embeds is not None:
            states = EncodedPrompts(prompt_embeds, negative_embeds)
        else:
            prompts = prompts or []
            negatives = [negative or ""] if negative is None or isinstance(negative, str) else list(negative)
            negatives = negatives * len(prompts) if len(negatives) == 1 else negatives
            states = encode_prompts(self.tokenizer, self.text_encoder, prompts, negatives if guided else None)
        device, dtype = self._execution_device, self.unet.dtype
        moved = None if states.negative is None else states.negative.to(device, dtype)
        return EncodedPrompts(states.positive.to(device, dtype), moved)

    def _latent_shape(self, num_frames: int, height: int | None, width: int | None) -> LatentShape:
        if height is None or width is None:
            sample_size = self.unet.config["sample_size"]
            if not isinstance(sample_size, int):
                raise ConfigError("This model does not say at which size it was trained; give height and width.")
            size = sample_size * self.scale_factors.spatial
            height, width = size if height is None else height, size if width is None else width
        return self.scale_factors.latent_shape(VideoShape(num_frames, height, width), self.unet.in_channels)

    def _solver(self, name: str | None, steps: int) -> Scheduler:
        solver: Scheduler = self.scheduler if name is None else make_scheduler(name, self.scheduler)
        if steps > solver.config["num_train_timesteps"]:
            raise ConfigError(f"At most {solver.config['num_train_timesteps']} steps are possible; given {steps}.")
        try:
            solver.set_timesteps(steps)
        except ValueError as error:
            raise ConfigError(f"{type(solver).__name__} cannot make {steps} steps: {error}") from error
        return solver

    def _start(self, noise: Tensor, latents: Tensor | None) -> Tensor:
        # The noise is drawn even where it is replaced, so that what a solver draws later stays the same.
        if latents is not None and latents.shape != noise.shape:
            raise ShapeError(f"latents must be {list(noise.shape)} for this call; given {list(latents.shape)}.")
        return (noise if latents is None else latents).to(self._execution_device, torch.float32)

    def _predictor(self, motion_strength: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        unet, dtype = self.unet, self.unet.dtype

        def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
            # Latents stay float32 between the steps, whatever the network computes in.
            return unet(latents.to(dtype), timestep, text, motion_strength=motion_strength).sample.float()

        return predict

    def _denoise(
        self,
        guidance: Guidance,
        solver: Scheduler,
        start: Tensor,
        options: dict[str, Any],
        callback: StepCallback | None,
    ) -> Tensor:
        def diagnose(latents: Tensor, timestep: Tensor) -> str:
            return first_anomalous_module(self.unet, lambda: guidance(latents, timestep)) or "the scheduler"

        with self.progress_bar(total=len(solver.timesteps)) as bar:  # pyright: ignore[reportCallIssue]

            def on_step(report: StepReport) -> Tensor | None:
                bar.update()
                replaced = None
                if callback is not None:
                    replaced = (callback(self, report.index, report.timestep, {"latents": report.latents}) or {}).get(
                        "latents"
                    )
                if self._interrupt:
                    raise StopIteration(replaced)
                return replaced

            return denoise(guidance, solver, start, solver.timesteps, on_step, options, diagnose)

    def _finish(
        self, latents: Tensor, output_type: OutputType, request: dict[str, Any], seed: int, per_prompt: int
    ) -> Any:
        if output_type == "latent":
            self.maybe_free_model_hooks()
            return latents
        if output_type in ("pt", "np"):
            pixels = torch.stack([torch.cat(list(decode_frames(self.vae, each))) for each in latents])
            self.maybe_free_model_hooks()
            return pixels if output_type == "pt" else pixels.movedim(2, -1).numpy()
        frames = [np.concatenate([to_uint8(piece) for piece in decode_frames(self.vae, each)]) for each in latents]
        self.maybe_free_model_hooks()
        prompts = request["prompt"]
        videos = []
        for index, each in enumerate(frames):
            own = dict(request, seed=seed + index, prompt=prompts[index // per_prompt] if prompts else None)
            negative = request["negative_prompt"]
            if negative is not None and not isinstance(negative, str):
                own["negative_prompt"] = negative[index // per_prompt % len(negative)]
            videos.append(Video(each, fps=request["fps"], request=own))
        return [video.to_pil() for video in videos] if output_type == "pil" else videos


def _require(conditions: Mapping[str, bool]) -> None:
    for message, holds in conditions.items():
        if not holds:
            raise ConfigError(message)


def _check_prompts(
    prompts: list[str] | None,
    negative: str | Sequence[str] | None,
    prompt_embeds: Tensor | None,
    negative_embeds: Tensor | None,
    guided: bool,
) -> None:
    if (prompts is None) == (prompt_embeds is None):
        raise ConfigError("Give either prompt or prompt_embeds; not both, and not neither.")
    if negative if prompts is None else negative_embeds is not None:
        raise ConfigError("negative_prompt goes with prompt, and negative_prompt_embeds with prompt_embeds.")
    if not guided and (negative or negative_embeds is not None):
        raise ConfigError("A negative prompt has no effect at guidance_scale 1; leave it out, or raise the scale.")
    if (
        guided
        and prompt_embeds is not None
        and (negative_embeds is None or negative_embeds.shape != prompt_embeds.shape)
    ):
        raise ShapeError(
            f"With guidance, negative_prompt_embeds must be {list(prompt_embeds.shape)} like prompt_embeds; or set "
            "guidance_scale to 1."
        )


def _repeat(encoded: EncodedPrompts, count: int) -> EncodedPrompts:
    negative = encoded.negative
    return EncodedPrompts(
        encoded.positive.repeat_interleave(count, dim=0),
        None if negative is None else negative.repeat_interleave(count, dim=0),
    )


def _step_options(solver: Scheduler, eta: float, generators: list[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(solver.step).parameters
    options: dict[str, Any] = {}
    if "generator" in accepted:
        options["generator"] = generators
    if "eta" in accepted:
        options["eta"] = eta
    elif eta:
        raise ConfigError(f"{type(solver).__name__} has no eta; leave it 0 or use the scheduler 'ddim'.")
    return options
