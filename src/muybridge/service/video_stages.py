"""Stages that train the demo's EasyAnimate from nothing, on the image VAE of the other demo."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import T5EncoderModel

from muybridge.backbones.dit import Transformer3DModel
from muybridge.demo import easyanimate_models, models, world
from muybridge.demo.batches import ConditionedVideoBatches, VideoBatches
from muybridge.service.runs import VideoDecoderStage, VideoStage, VideoTextStage, VideoVAEStage
from muybridge.service.stage_work import SavablePart, StageWork, exported_part
from muybridge.training.methods import DiffusionObjective
from muybridge.training.video_decoder_method import Remaking, VideoDecoderMethod
from muybridge.training.video_methods import ContrastiveT5Method, VideoDiffusionMethod, VideoVAEMethod, encode_videos
from muybridge.vae import AutoencoderKLMagvit


class VideoVAEWork(StageWork):
    """The video VAE."""

    def __init__(self, stage: VideoVAEStage, output: Path) -> None:
        """Build what is trained, and its batches."""
        image_vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        self.vae = easyanimate_models.make_video_vae(image_vae)
        self.method = VideoVAEMethod(self.vae)
        self.batches = VideoBatches(stage.batch_size, stage.seed)

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        self.vae.register_to_config(scaling_factor=self._unit_scale())
        return {"vae": self.vae}

    def _unit_scale(self) -> float:
        """The factor that gives latents unit variance, measured on clips and stills the VAE has not seen."""
        videos = [self.batches(2**31 + i)["pixels"].to(self.vae.device) for i in range(32)]
        with torch.no_grad():
            latents = torch.cat([encode_videos(self.vae, pixels).flatten() for pixels in videos])
        return round(float(self.vae.config["scaling_factor"] / latents.std()), 5)


class VideoTextWork(StageWork):
    """The text encoder of the video transformer."""

    def __init__(self, stage: VideoTextStage, _output: Path) -> None:
        """Build what is trained, and its batches."""
        tokenizer = models.make_tokenizer()
        self.text_encoder = easyanimate_models.make_text_encoder(tokenizer)
        self.method = ContrastiveT5Method(self.text_encoder, easyanimate_models.make_vision_encoder())
        self.batches = ConditionedVideoBatches(stage.batch_size, stage.seed, tokenizer, caption_dropout=0.0)

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"text_encoder": self.text_encoder}


class VideoWork(StageWork):
    """The video transformer."""

    def __init__(self, stage: VideoStage, output: Path) -> None:
        """Build what is trained, and its batches."""
        self._load(output)
        vae = AutoencoderKLMagvit.from_pretrained(exported_part(output, "video-vae", "vae"))
        objective = DiffusionObjective(models.make_scheduler(), stage.timestep_shift)
        self.method = VideoDiffusionMethod(self.transformer, self.text_encoder, vae, objective)
        self.batches = ConditionedVideoBatches(
            stage.batch_size,
            stage.seed,
            models.make_tokenizer(),
            stage.caption_dropout,
            (stage.first_still_share, stage.last_still_share),
            stage.steps * stage.processes,
            world.oversampled(stage.oversample),
        )

    def _load(self, output: Path) -> None:
        self.text_encoder = T5EncoderModel.from_pretrained(exported_part(output, "video-text", "text_encoder"))
        self.transformer = easyanimate_models.make_transformer()

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"transformer": self.transformer, "text_encoder": self.text_encoder}


class VideoRefineWork(VideoWork):
    """The video transformer, once more."""

    def _load(self, output: Path) -> None:
        self.text_encoder = T5EncoderModel.from_pretrained(exported_part(output, "video", "text_encoder"))
        self.transformer = Transformer3DModel.from_pretrained(exported_part(output, "video", "transformer"))


class VideoDecoderWork(StageWork):
    """The decoder of the video VAE, once there is a transformer."""

    def __init__(self, stage: VideoDecoderStage, output: Path) -> None:
        """Build what is trained, and its batches."""
        self.vae = AutoencoderKLMagvit.from_pretrained(exported_part(output, "video-vae", "vae"))
        tokenizer = models.make_tokenizer()
        empty = tokenizer([""], padding="max_length", return_tensors="pt")
        self.method = VideoDecoderMethod(
            self.vae,
            Transformer3DModel.from_pretrained(exported_part(output, "video-refine", "transformer")),
            T5EncoderModel.from_pretrained(exported_part(output, "video-refine", "text_encoder")),
            models.make_scheduler(),
            (empty.input_ids, empty.attention_mask),
            Remaking(stage.most_noise, stage.denoising_steps, stage.guidance),
        )
        self.batches = ConditionedVideoBatches(
            stage.batch_size,
            stage.seed,
            tokenizer,
            still_shares=(stage.still_share, stage.still_share),
            triples=world.oversampled(stage.oversample),
        )

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"vae": self.vae}
