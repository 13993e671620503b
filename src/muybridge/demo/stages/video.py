"""Stages that train the demo's EasyAnimate from nothing, on the image VAE of the other demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from muybridge.training.data import TrainingData
from muybridge.training.stages.denoising import DenoisingStage
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import (
    PipelineStage,
    RunSettings,
    SavablePart,
    Stage,
    StageWork,
    exported_part,
)

if TYPE_CHECKING:
    from transformers import T5EncoderModel

    from muybridge.backbones.dit import Transformer3DModel
    from muybridge.pipelines import EasyAnimatePipeline


@register_stage
class VideoVAEStage(Stage):
    """Train the video VAE, which begins as the image VAE, on clips and stills."""

    needs: ClassVar[tuple[str, ...]] = ("vae",)
    parts: ClassVar[tuple[str, ...]] = ("vae",)

    method: Literal["video-vae"]

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        import torch
        from diffusers import AutoencoderKL

        from muybridge.demo import easyanimate_models
        from muybridge.demo.batches import VideoBatches
        from muybridge.training.methods.vae import VAEMethod, scale_to_unit
        from muybridge.vae.magvit.batches import encode_videos

        image_vae = AutoencoderKL.from_pretrained(exported_part(output, "vae", "vae"))
        vae = easyanimate_models.make_video_vae(image_vae)
        batches = VideoBatches(self.batch_size, self.seed)

        def trained_parts() -> dict[str, SavablePart]:
            unseen = [batches(2**31 + i)["pixels"].to(vae.device) for i in range(32)]  # clips and stills
            with torch.no_grad():
                scale_to_unit(vae, torch.cat([encode_videos(vae, pixels).flatten() for pixels in unseen]))
            return {"vae": vae}

        return StageWork(VAEMethod(vae), batches, trained_parts)


@register_stage
class VideoTextStage(Stage):
    """Train a T5 text encoder against pictures, as CLIP is; the size of a batch counts four pictures each."""

    parts: ClassVar[tuple[str, ...]] = ("text_encoder",)

    method: Literal["video-text"]

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from muybridge.demo import easyanimate_models, models
        from muybridge.demo.batches import ConditionedVideoBatches
        from muybridge.training.methods.text import ContrastiveT5Method

        tokenizer = models.make_tokenizer()
        text_encoder = easyanimate_models.make_text_encoder(tokenizer)
        method = ContrastiveT5Method(text_encoder, easyanimate_models.make_vision_encoder())
        batches = ConditionedVideoBatches(self.batch_size, self.seed, tokenizer, caption_dropout=0.0)
        return StageWork(method, batches, lambda: {"text_encoder": text_encoder})


class _VideoSettings(DenoisingStage, PipelineStage):
    """What the stages of the video transformer share.

    The size of a batch counts clips; a batch of stills has four times as many.
    """

    parts: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder")

    first_still_share: float = Field(default=0.85, ge=0, le=1)
    """Share of batches with stills at the beginning; from there it changes evenly."""
    last_still_share: float = Field(default=0.25, ge=0, le=1)
    timestep_shift: float = Field(default=2.0, gt=0)
    """Above 1 high noise is drawn more often, below 1 low noise."""
    oversample: dict[str, Annotated[int, Field(strict=True)]] = Field(default_factory=dict)
    """Shapes, colours and motions that come more often than others, and how many times as often."""

    def check(self, data: TrainingData) -> None:
        """What comes more often."""
        _check_oversampling(self.oversample)

    def _work(self, output: Path, transformer: Transformer3DModel, text_encoder: T5EncoderModel) -> StageWork:
        from muybridge.demo import models, world
        from muybridge.demo.batches import ConditionedVideoBatches
        from muybridge.pipelines.easyanimate.family import TRAINING
        from muybridge.training.methods.denoise import DenoisingMethod, TrainedNetworks
        from muybridge.vae import AutoencoderKLMagvit

        vae = AutoencoderKLMagvit.from_pretrained(exported_part(output, "video-vae", "vae"))
        objective = self.make_objective(models.make_scheduler())
        batches = ConditionedVideoBatches(
            self.batch_size,
            self.seed,
            models.make_tokenizer(),
            self.caption_dropout,
            (self.first_still_share, self.last_still_share),
            self.steps * self.batches_a_step,
            world.oversampled(self.oversample),
        )
        return StageWork(
            DenoisingMethod(TrainedNetworks(transformer, text_encoder, vae), objective, TRAINING),
            batches,
            lambda: {"transformer": transformer, "text_encoder": text_encoder},
        )

    def pipeline(self, run: RunSettings, output: Path) -> EasyAnimatePipeline:
        """The video transformer with the VAE that it was trained on."""
        return _assembled(run, output, network_from=self.method, vae_from="video-vae")


@register_stage
class VideoStage(_VideoSettings):
    """Train the video transformer, its motion modules and the text encoder, on stills and clips."""

    needs: ClassVar[tuple[str, ...]] = ("video-vae", "video-text")

    method: Literal["video"]

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from transformers import T5EncoderModel

        from muybridge.demo import easyanimate_models

        text_encoder = T5EncoderModel.from_pretrained(exported_part(output, "video-text", "text_encoder"))
        return self._work(output, easyanimate_models.make_transformer(), text_encoder)


@register_stage
class VideoRefineStage(_VideoSettings):
    """Go on from the video stage with a rate, a share of stills and noise levels of its own."""

    needs: ClassVar[tuple[str, ...]] = ("video-vae", "video")

    method: Literal["video-refine"]

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        return self._work(output, *_networks(output, "video"))


@register_stage
class VideoDecoderStage(PipelineStage):
    """Train the decoder of the video VAE on latents as the video transformer makes them; all else is frozen.

    The size of a batch counts clips; a batch of stills has four times as many.
    """

    needs: ClassVar[tuple[str, ...]] = ("video-vae", "video-refine")
    parts: ClassVar[tuple[str, ...]] = ("vae",)

    method: Literal["video-decoder"]
    still_share: float = Field(default=0.5, ge=0, le=1)
    """Share of batches with stills."""
    oversample: dict[str, Annotated[int, Field(strict=True)]] = Field(default_factory=dict)
    """Shapes, colours and motions that come more often than others, and how many times as often."""
    guidance: float = Field(default=4.0, ge=0)
    most_noise: float = Field(default=0.6, gt=0, le=1)
    """The highest noise level that the transformer starts from, as a share of the training timesteps."""
    denoising_steps: int = Field(default=3, ge=1)

    def check(self, data: TrainingData) -> None:
        """What comes more often."""
        _check_oversampling(self.oversample)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from muybridge.demo import models, world
        from muybridge.demo.batches import ConditionedVideoBatches
        from muybridge.training.methods.decoder import Remaking, VideoDecoderMethod
        from muybridge.vae import AutoencoderKLMagvit

        vae = AutoencoderKLMagvit.from_pretrained(exported_part(output, "video-vae", "vae"))
        tokenizer = models.make_tokenizer()
        empty = tokenizer([""], padding="max_length", return_tensors="pt")
        method = VideoDecoderMethod(
            vae,
            *_networks(output, "video-refine"),
            models.make_scheduler(),
            (empty.input_ids, empty.attention_mask),
            Remaking(self.most_noise, self.denoising_steps, self.guidance),
        )
        batches = ConditionedVideoBatches(
            self.batch_size,
            self.seed,
            tokenizer,
            still_shares=(self.still_share, self.still_share),
            triples=world.oversampled(self.oversample),
        )
        return StageWork(method, batches, lambda: {"vae": vae})

    def pipeline(self, run: RunSettings, output: Path) -> EasyAnimatePipeline:
        """The refined video transformer with the VAE whose decoder was trained for it."""
        return _assembled(run, output, network_from="video-refine", vae_from=self.method)


def _check_oversampling(oversample: dict[str, int]) -> None:
    from muybridge.demo import world

    world.oversampled(oversample)


def _networks(output: Path, method: str) -> tuple[Transformer3DModel, T5EncoderModel]:
    from transformers import T5EncoderModel

    from muybridge.backbones.dit import Transformer3DModel

    return (
        Transformer3DModel.from_pretrained(exported_part(output, method, "transformer")),
        T5EncoderModel.from_pretrained(exported_part(output, method, "text_encoder")),
    )


def _assembled(run: RunSettings, output: Path, network_from: str, vae_from: str) -> EasyAnimatePipeline:
    from muybridge.demo import models, render
    from muybridge.pipelines import EasyAnimatePipeline
    from muybridge.vae import AutoencoderKLMagvit

    transformer, text_encoder = _networks(output, network_from)
    return EasyAnimatePipeline(
        vae=AutoencoderKLMagvit.from_pretrained(exported_part(output, vae_from, "vae")),
        text_encoder=text_encoder,
        tokenizer=models.make_tokenizer(),
        transformer=transformer,
        scheduler=models.make_scheduler(),
        default_size=(render.FRAME_SIZE, render.FRAME_SIZE),
        default_num_frames=render.CLIP_FRAMES,
        default_steps=run.default_steps,
        default_guidance=run.default_guidance,
        max_tokens=models.MAX_TOKENS,
        clean_captions=False,
        known_frames=1,
        profile="clean",
    )
