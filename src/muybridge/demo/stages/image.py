"""Stages that train the demo's AnimateDiff from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from muybridge.training.data import TrainingData
from muybridge.training.stages.denoising import DenoisingStage
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import (
    MotionSettings,
    PipelineStage,
    RunSettings,
    SavablePart,
    Stage,
    StageWork,
    exported_part,
)

if TYPE_CHECKING:
    from muybridge.pipelines import AnimateDiffPipeline


@register_stage
class VAEStage(Stage):
    """Train the image VAE on stills."""

    parts: ClassVar[tuple[str, ...]] = ("vae",)

    method: Literal["vae"]

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        import torch

        from muybridge.demo import models
        from muybridge.demo.batches import StillBatches
        from muybridge.training.methods.vae import VAEMethod, scale_to_unit
        from muybridge.vae import encode_images

        vae = models.make_vae()
        batches = StillBatches(self.batch_size, self.seed)

        def trained_parts() -> dict[str, SavablePart]:
            unseen = torch.cat([batches(2**31 + i)["pixels"] for i in range(32)]).to(vae.device)
            with torch.no_grad():
                scale_to_unit(vae, encode_images(vae, unseen))
            return {"vae": vae}

        return StageWork(VAEMethod(vae), batches, trained_parts)


@register_stage
class TextStage(Stage):
    """Train the text encoder against pictures, as CLIP is."""

    parts: ClassVar[tuple[str, ...]] = ("text_encoder",)

    method: Literal["text"]

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from muybridge.demo import models
        from muybridge.demo.batches import StillBatches
        from muybridge.training.methods.text import ContrastiveTextMethod

        tokenizer = models.make_tokenizer()
        clip = models.make_clip(tokenizer)
        batches = StillBatches(self.batch_size, self.seed, tokenizer)
        return StageWork(ContrastiveTextMethod(clip), batches, lambda: {"text_encoder": models.text_tower(clip)})


@register_stage
class ImageStage(DenoisingStage):
    """Train the U-Net and the text encoder on stills."""

    needs: ClassVar[tuple[str, ...]] = ("vae", "text")
    parts: ClassVar[tuple[str, ...]] = ("unet", "text_encoder")

    method: Literal["image"]
    timestep_shift: float = Field(default=2.0, ge=1)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from diffusers import AutoencoderKL
        from transformers import CLIPTextModel

        from muybridge.demo import models
        from muybridge.demo.batches import StillBatches
        from muybridge.training.methods.denoise import ImageDiffusionMethod

        vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        text_encoder = CLIPTextModel.from_pretrained(exported_part(output, "text", "text_encoder"))
        unet = models.make_unet()
        objective = self.make_objective(models.make_scheduler())
        batches = StillBatches(self.batch_size, self.seed, models.make_tokenizer(), self.caption_dropout)
        return StageWork(
            ImageDiffusionMethod(unet, text_encoder, vae, objective),
            batches,
            lambda: {"unet": unet, "text_encoder": text_encoder},
        )


@register_stage
class MotionStage(DenoisingStage, PipelineStage):
    """Train motion modules on clips; everything else is frozen."""

    needs: ClassVar[tuple[str, ...]] = ("vae", "image")
    parts: ClassVar[tuple[str, ...]] = ("motion_adapter",)

    method: Literal["motion"]
    num_frames: int = Field(default=8, ge=1, le=16)
    whole_clip_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the batches with all 16 frames of fewer clips."""
    motion: MotionSettings = MotionSettings()

    def check(self, data: TrainingData) -> None:
        """The kind of motion module, and its settings."""
        from muybridge.motion.registry import make_config

        make_config(self.motion.kind, self.motion.config)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from diffusers import AutoencoderKL
        from transformers import CLIPTextModel

        from muybridge.backbones.unet import UNet3DConditionModel
        from muybridge.demo import models
        from muybridge.demo.batches import ClipBatches
        from muybridge.motion import MotionAdapter
        from muybridge.motion.registry import make_config
        from muybridge.pipelines.animatediff.family import TRAINING
        from muybridge.training.methods.adapters import MotionMethod
        from muybridge.training.methods.denoise import TrainedNetworks

        vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        text_encoder = CLIPTextModel.from_pretrained(exported_part(output, "image", "text_encoder"))
        unet = UNet3DConditionModel.from_unet2d(exported_part(output, "image", "unet"))
        config = make_config(self.motion.kind, self.motion.config)
        adapter = MotionAdapter.for_sites(unet.motion_sites().values(), self.motion.kind, config)
        unet.set_motion_adapter(adapter)
        objective = self.make_objective(models.make_scheduler())
        batches = ClipBatches(
            self.batch_size,
            self.num_frames,
            self.seed,
            models.make_tokenizer(),
            self.caption_dropout,
            self.whole_clip_share,
        )
        method = MotionMethod(TrainedNetworks(unet, text_encoder, vae), objective, TRAINING)
        return StageWork(method, batches, lambda: {"motion_adapter": adapter})

    def pipeline(self, run: RunSettings, output: Path) -> AnimateDiffPipeline:
        """The image model, with the motion modules."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel

        from muybridge.demo import models
        from muybridge.motion import MotionAdapter
        from muybridge.pipelines import AnimateDiffPipeline

        return AnimateDiffPipeline(
            vae=AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae")),
            text_encoder=CLIPTextModel.from_pretrained(exported_part(output, "image", "text_encoder")),
            tokenizer=models.make_tokenizer(),
            unet=UNet2DConditionModel.from_pretrained(exported_part(output, "image", "unet")),
            scheduler=models.make_scheduler(),
            motion_adapter=MotionAdapter.from_pretrained(exported_part(output, self.method, "motion_adapter")),
            default_steps=run.default_steps,
            default_guidance=run.default_guidance,
        )
