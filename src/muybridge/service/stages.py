"""What each stage of a run trains, on which batches, and the parts of the pipeline that come out of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn
from transformers import CLIPTextModel, T5EncoderModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.demo import easyanimate_models, models
from muybridge.demo.batches import ClipBatches, ConditionedVideoBatches, KeyframeBatches, StillBatches, VideoBatches
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.motion.integration import integrate_motion
from muybridge.motion.registry import make_config
from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline, load_pipeline
from muybridge.service.runs import (
    ImageStage,
    MotionAdapterStage,
    MotionStage,
    SparseControlStage,
    Stage,
    TextStage,
    TrainingRun,
    VAEStage,
    VideoStage,
    VideoTextStage,
    VideoVAEStage,
)
from muybridge.training.adapter_methods import TransformerMotionMethod
from muybridge.training.methods import (
    ContrastiveTextMethod,
    DiffusionObjective,
    ImageDiffusionMethod,
    ImageVAEMethod,
    MotionMethod,
)
from muybridge.training.sparse_control_method import SparseControlMethod, make_keyframe_control
from muybridge.training.trainer import BatchSource
from muybridge.training.video_methods import (
    ContrastiveT5Method,
    VideoDiffusionMethod,
    VideoVAEMethod,
    encode_videos,
)
from muybridge.vae import AutoencoderKLMagvit, encode_images


class SavablePart(Protocol):
    """A model of diffusers or transformers."""

    def save_pretrained(self, save_directory: Path, /) -> Any:
        """Write a folder."""


class StageWork(ABC):
    """A stage made ready: its method, its batches, and what it hands out once trained."""

    method: nn.Module
    batches: BatchSource

    @abstractmethod
    def trained_parts(self) -> dict[str, SavablePart]:
        """Parts of the pipeline by name, with the weights that `method` holds now."""


def exported_part(output: Path, method: str, part: str = "") -> Path:
    """Where a finished stage of the run in `output` leaves its parts."""
    return output / method / "exported" / part


def check_stage(stage: Stage) -> None:
    """Find what only the networks know to be wrong, before the stages ahead are trained for nothing.

    Raises:
        ConfigError: an unknown kind of motion module, or settings it does not have.
    """
    if isinstance(stage, MotionStage | MotionAdapterStage):
        make_config(stage.motion.kind, stage.motion.config)
    if isinstance(stage, SparseControlStage):
        _control_config(stage)


def prepare_stage(stage: Stage, output: Path) -> StageWork:
    """Build what a stage needs from the parts of the stages before it."""
    work: StageWork
    match stage:
        case VAEStage():
            work = _VAEWork(stage)
        case TextStage():
            work = _TextWork(stage)
        case ImageStage():
            work = _ImageWork(stage, output)
        case MotionStage():
            work = _MotionWork(stage, output)
        case MotionAdapterStage():
            work = _MotionAdapterWork(stage)
        case SparseControlStage():
            work = _SparseControlWork(stage)
        case VideoVAEStage():
            work = _VideoVAEWork(stage, output)
        case VideoTextStage():
            work = _VideoTextWork(stage)
        case VideoStage():
            work = _VideoWork(stage, output)
    return work


class _VAEWork(StageWork):
    def __init__(self, stage: VAEStage) -> None:
        self.vae = models.make_vae()
        self.method = ImageVAEMethod(self.vae)
        self.batches = StillBatches(stage.batch_size, stage.seed)

    def trained_parts(self) -> dict[str, SavablePart]:
        self.vae.register_to_config(scaling_factor=self._unit_scale())
        return {"vae": self.vae}

    def _unit_scale(self) -> float:
        """The factor that gives latents unit variance, measured on stills the VAE has not seen."""
        pixels = torch.cat([self.batches(2**31 + i)["pixels"] for i in range(32)]).to(self.vae.device)
        with torch.no_grad():
            spread = float(encode_images(self.vae, pixels).std()) / self.vae.config["scaling_factor"]
        return round(1 / spread, 5)


class _TextWork(StageWork):
    def __init__(self, stage: TextStage) -> None:
        tokenizer = models.make_tokenizer()
        self.clip = models.make_clip(tokenizer)
        self.method = ContrastiveTextMethod(self.clip)
        self.batches = StillBatches(stage.batch_size, stage.seed, tokenizer)

    def trained_parts(self) -> dict[str, SavablePart]:
        return {"text_encoder": models.text_tower(self.clip)}


class _ImageWork(StageWork):
    def __init__(self, stage: ImageStage, output: Path) -> None:
        vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        self.text_encoder = CLIPTextModel.from_pretrained(exported_part(output, "text", "text_encoder"))
        self.unet = models.make_unet()
        objective = DiffusionObjective(models.make_scheduler(), stage.timestep_shift)
        self.method = ImageDiffusionMethod(self.unet, self.text_encoder, vae, objective)
        tokenizer = models.make_tokenizer()
        self.batches = StillBatches(stage.batch_size, stage.seed, tokenizer, stage.caption_dropout)

    def trained_parts(self) -> dict[str, SavablePart]:
        return {"unet": self.unet, "text_encoder": self.text_encoder}


class _MotionWork(StageWork):
    def __init__(self, stage: MotionStage, output: Path) -> None:
        vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        text_encoder = CLIPTextModel.from_pretrained(exported_part(output, "image", "text_encoder"))
        unet = UNet3DConditionModel.from_unet2d(exported_part(output, "image", "unet"))
        config = make_config(stage.motion.kind, stage.motion.config)
        self.adapter = MotionAdapter.for_sites(unet.motion_sites().values(), stage.motion.kind, config)
        unet.set_motion_adapter(self.adapter)
        objective = DiffusionObjective(models.make_scheduler(), stage.timestep_shift)
        self.method = MotionMethod(unet, text_encoder, vae, objective)
        self.batches = ClipBatches(
            stage.batch_size,
            stage.num_frames,
            stage.seed,
            models.make_tokenizer(),
            stage.caption_dropout,
            stage.whole_clip_share,
        )

    def trained_parts(self) -> dict[str, SavablePart]:
        return {"motion_adapter": self.adapter}


class _MotionAdapterWork(StageWork):
    def __init__(self, stage: MotionAdapterStage) -> None:
        base = load_pipeline(stage.base)
        added = integrate_motion(base, stage.motion.kind, mode="replace", config=stage.motion.config)
        self.adapter = added.adapter
        objective = DiffusionObjective(_training_scheduler(base), stage.timestep_shift)
        if isinstance(base, AnimateDiffPipeline):
            self.method = MotionMethod(base.unet, base.text_encoder, base.vae, objective)
            self.batches = ClipBatches(
                stage.batch_size,
                stage.num_frames or 8,
                stage.seed,
                base.tokenizer,
                stage.caption_dropout,
                0.25 if stage.whole_clip_share is None else stage.whole_clip_share,
            )
            return
        if stage.num_frames is not None or stage.whole_clip_share is not None:
            raise ConfigError(
                f"{stage.base} has a transformer, which is trained on whole clips; leave num_frames and "
                "whole_clip_share out."
            )
        self.method = TransformerMotionMethod(base.transformer, base.text_encoder, base.vae, objective)
        self.batches = ConditionedVideoBatches(
            stage.batch_size, stage.seed, base.tokenizer, stage.caption_dropout, still_shares=(0.0, 0.0)
        )

    def trained_parts(self) -> dict[str, SavablePart]:
        return {"motion_adapter": self.adapter}


def _training_scheduler(base: AnimateDiffPipeline | EasyAnimatePipeline) -> DDIMScheduler:
    """The noise levels of a model, whatever solver it runs with."""
    return DDIMScheduler.from_config(base.scheduler.config)  # type: ignore[return-value]


def pipeline_with_adapter(
    run: TrainingRun, stage: MotionAdapterStage, output: Path
) -> AnimateDiffPipeline | EasyAnimatePipeline:
    """The model that a finished stage has trained on, with the motion modules that came of it.

    Its default steps and guidance stay, unless the run file gives some.
    """
    base = load_pipeline(stage.base)
    adapter = MotionAdapter.from_pretrained(exported_part(output, stage.method, "motion_adapter"))
    (base if isinstance(base, AnimateDiffPipeline) else base.transformer).set_motion_adapter(adapter)
    _take_defaults(base, run)
    return base


def _take_defaults(base: AnimateDiffPipeline | EasyAnimatePipeline, run: TrainingRun) -> None:
    given = run.model_fields_set & {"default_steps", "default_guidance"}
    base.register_to_config(**{name: getattr(run, name) for name in given})


class _SparseControlWork(StageWork):
    def __init__(self, stage: SparseControlStage) -> None:
        base = _unet_pipeline(stage.base)
        self.control = make_keyframe_control(base.unet, _control_config(stage), stage.motion_levels)
        objective = DiffusionObjective(_training_scheduler(base), stage.timestep_shift)
        self.method = SparseControlMethod(base.unet, self.control, base.vae, base.text_encoder, objective)
        self.batches = KeyframeBatches(
            stage.batch_size,
            stage.num_frames,
            stage.seed,
            base.tokenizer,
            stage.caption_dropout,
            stage.whole_clip_share,
        )

    def trained_parts(self) -> dict[str, SavablePart]:
        return {"keyframe_control": self.control}


def _control_config(stage: SparseControlStage) -> TemporalConfig:
    return cast("TemporalConfig", make_config("temporal", {"attentions_per_block": 1, **stage.motion}))


def _unet_pipeline(model: str) -> AnimateDiffPipeline:
    base = load_pipeline(model)
    if not isinstance(base, AnimateDiffPipeline):
        raise ConfigError(f"{model} has a transformer, and a SparseCtrl is for models with a U-Net; give base another.")
    return base


def pipeline_with_control(run: TrainingRun, stage: SparseControlStage, output: Path) -> AnimateDiffPipeline:
    """The model that a finished stage has trained beside, with the SparseCtrl for keyframes that came of it.

    Its default steps and guidance stay, unless the run file gives some.
    """
    base = _unet_pipeline(stage.base)
    base.set_sparse_control(SparseControlModel.from_pretrained(exported_part(output, stage.method, "keyframe_control")))
    _take_defaults(base, run)
    return base


class _VideoVAEWork(StageWork):
    def __init__(self, stage: VideoVAEStage, output: Path) -> None:
        image_vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        self.vae = easyanimate_models.make_video_vae(image_vae)
        self.method = VideoVAEMethod(self.vae)
        self.batches = VideoBatches(stage.batch_size, stage.seed)

    def trained_parts(self) -> dict[str, SavablePart]:
        self.vae.register_to_config(scaling_factor=self._unit_scale())
        return {"vae": self.vae}

    def _unit_scale(self) -> float:
        """The factor that gives latents unit variance, measured on clips and stills the VAE has not seen."""
        videos = [self.batches(2**31 + i)["pixels"].to(self.vae.device) for i in range(32)]
        with torch.no_grad():
            latents = torch.cat([encode_videos(self.vae, pixels).flatten() for pixels in videos])
        return round(float(self.vae.config["scaling_factor"] / latents.std()), 5)


class _VideoTextWork(StageWork):
    def __init__(self, stage: VideoTextStage) -> None:
        tokenizer = models.make_tokenizer()
        self.text_encoder = easyanimate_models.make_text_encoder(tokenizer)
        self.method = ContrastiveT5Method(self.text_encoder, easyanimate_models.make_vision_encoder())
        self.batches = ConditionedVideoBatches(stage.batch_size, stage.seed, tokenizer, caption_dropout=0.0)

    def trained_parts(self) -> dict[str, SavablePart]:
        return {"text_encoder": self.text_encoder}


class _VideoWork(StageWork):
    def __init__(self, stage: VideoStage, output: Path) -> None:
        vae = AutoencoderKLMagvit.from_pretrained(exported_part(output, "video-vae", "vae"))
        self.text_encoder = T5EncoderModel.from_pretrained(exported_part(output, "video-text", "text_encoder"))
        self.transformer = easyanimate_models.make_transformer()
        objective = DiffusionObjective(models.make_scheduler(), stage.timestep_shift)
        self.method = VideoDiffusionMethod(self.transformer, self.text_encoder, vae, objective)
        self.batches = ConditionedVideoBatches(
            stage.batch_size,
            stage.seed,
            models.make_tokenizer(),
            stage.caption_dropout,
            (stage.first_still_share, stage.last_still_share),
            stage.steps * stage.processes,
        )

    def trained_parts(self) -> dict[str, SavablePart]:
        return {"transformer": self.transformer, "text_encoder": self.text_encoder}
