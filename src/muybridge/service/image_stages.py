"""Stages that train the demo's AnimateDiff from nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.demo import models
from muybridge.demo.batches import ClipBatches, StillBatches
from muybridge.motion import MotionAdapter
from muybridge.motion.registry import make_config
from muybridge.service.runs import ImageStage, MotionStage, TextStage, VAEStage
from muybridge.service.stage_work import SavablePart, StageWork, exported_part
from muybridge.training.methods import (
    ContrastiveTextMethod,
    DiffusionObjective,
    ImageDiffusionMethod,
    ImageVAEMethod,
    MotionMethod,
)
from muybridge.vae import encode_images


class VAEWork(StageWork):
    """The image VAE."""

    def __init__(self, stage: VAEStage, _output: Path) -> None:
        """Build what is trained, and its batches."""
        self.vae = models.make_vae()
        self.method = ImageVAEMethod(self.vae)
        self.batches = StillBatches(stage.batch_size, stage.seed)

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        self.vae.register_to_config(scaling_factor=self._unit_scale())
        return {"vae": self.vae}

    def _unit_scale(self) -> float:
        """The factor that gives latents unit variance, measured on stills the VAE has not seen."""
        pixels = torch.cat([self.batches(2**31 + i)["pixels"] for i in range(32)]).to(self.vae.device)
        with torch.no_grad():
            spread = float(encode_images(self.vae, pixels).std()) / self.vae.config["scaling_factor"]
        return round(1 / spread, 5)


class TextWork(StageWork):
    """The text encoder of the image model."""

    def __init__(self, stage: TextStage, _output: Path) -> None:
        """Build what is trained, and its batches."""
        tokenizer = models.make_tokenizer()
        self.clip = models.make_clip(tokenizer)
        self.method = ContrastiveTextMethod(self.clip)
        self.batches = StillBatches(stage.batch_size, stage.seed, tokenizer)

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"text_encoder": models.text_tower(self.clip)}


class ImageWork(StageWork):
    """The image model."""

    def __init__(self, stage: ImageStage, output: Path) -> None:
        """Build what is trained, and its batches."""
        vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        self.text_encoder = CLIPTextModel.from_pretrained(exported_part(output, "text", "text_encoder"))
        self.unet = models.make_unet()
        objective = DiffusionObjective(models.make_scheduler(), stage.timestep_shift)
        self.method = ImageDiffusionMethod(self.unet, self.text_encoder, vae, objective)
        tokenizer = models.make_tokenizer()
        self.batches = StillBatches(stage.batch_size, stage.seed, tokenizer, stage.caption_dropout)

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"unet": self.unet, "text_encoder": self.text_encoder}


class MotionWork(StageWork):
    """Motion modules on the run's own image model."""

    def __init__(self, stage: MotionStage, output: Path) -> None:
        """Build what is trained, and its batches."""
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
        """What was trained, as it is now."""
        return {"motion_adapter": self.adapter}
