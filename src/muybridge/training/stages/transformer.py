"""The stage that trains the transformer of a model that exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from muybridge.errors import ConfigError
from muybridge.training.data import BatchSource, TrainingData
from muybridge.training.objective.settings import ObjectiveSettings
from muybridge.training.stages.denoising import DenoisingStage
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import BaseChoice, PipelineStage, RunSettings, StageWork, exported_part

if TYPE_CHECKING:
    from muybridge.backbones.dit import Transformer3DModel
    from muybridge.pipelines import VideoPipeline
    from muybridge.pipelines.family import Training


@register_stage
class TransformerStage(DenoisingStage, PipelineStage):
    """Train the transformer of a model, or parts of it; text encoder and VAE stay as they are."""

    parts: ClassVar[tuple[str, ...]] = ("transformer",)

    method: Literal["transformer"]
    base: str = "demo/easyanimate"
    """The model: a shipped one, a folder, or a hub id, with a transformer."""
    train: str = "all"
    """What is trained: all, motion, or a regular expression that the names of parameters must contain, such as
    `transformer_blocks[.](6|7|8)[.]`."""
    known: Literal["clips", "drawn"] = "drawn"
    """What of a clip is given: what the set of clips says, or masks as EasyAnimate draws them, which are boxes, first
    frames, and first and last frames."""
    picture_dropout: float = Field(default=0.5, ge=0, le=1)
    """Share of the clips for which the picture that a model is told of by CLIP does not count, where it is told of one
    and `known` is drawn."""
    untold_share: float = Field(default=0.0, ge=0, le=1)
    """Of clips with nothing given, how many are not even told so; 0.9 as the original, whose videos are never so."""
    layouts: tuple[Literal["original"], ...] = ()
    """Layouts of other programs that the transformer is written in besides, next to the model."""

    def check(self, data: TrainingData) -> None:
        """The pattern, and whether the model is there."""
        from muybridge.training.methods.backbone import trained_pattern
        from muybridge.training.stages.base_model import check_base

        trained_pattern(self.train)
        check_base(self.base)

    def model_before(self) -> BaseChoice:
        """The model that is trained on."""
        return BaseChoice(self.base)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: a model with a U-Net, a pattern that matches nothing, or a layout that cannot express it.
            CheckpointError: the model cannot be loaded.
        """
        from muybridge.backbones.dit.publishing import published_config
        from muybridge.training.inpainting import InpaintingClips
        from muybridge.training.methods.backbone import BackboneMethod
        from muybridge.training.objective.diffusion import DiffusionObjective
        from muybridge.training.stages.base_model import clips_for, networks_of, training_scheduler, wanted_clips

        base, how, transformer = self._base()
        if self.layouts:
            published_config(transformer)
        scheduler = training_scheduler(base)
        objective = DiffusionObjective(scheduler, self._objective(transformer, scheduler.config["prediction_type"]))
        method = BackboneMethod(networks_of(base), objective, how, self.train)
        wanted = wanted_clips(base, self, self.caption_dropout)

        def seen(clips: BatchSource) -> BatchSource:
            if self.known != "drawn":
                return clips
            return InpaintingClips(clips, self.seed, self.picture_dropout, self.untold_share)

        clips = seen(clips_for(data, wanted, how, self.base))
        return StageWork(method, clips, lambda: {"transformer": transformer}, pipeline=base, seen=seen)

    def pipeline(self, run: RunSettings, output: Path) -> VideoPipeline:
        """The model that was trained on, with the transformer that came of it.

        Its default steps and guidance stay, unless the run file gives some.
        """
        from muybridge.backbones.dit import Transformer3DModel

        base, _, _ = self._base()
        trained = Transformer3DModel.from_pretrained(exported_part(output, self.method, "transformer"))
        base.register_modules(transformer=trained)
        base.register_to_config(**run.given_defaults)
        return base

    def publish(self, run: RunSettings, output: Path) -> Path:
        """Write the pipeline to `output/model`, and what else is asked for beside it."""
        from muybridge.backbones.dit import Transformer3DModel
        from muybridge.backbones.dit.publishing import write_published

        folder = super().publish(run, output)
        if "original" in self.layouts:
            trained = Transformer3DModel.from_pretrained(exported_part(output, self.method, "transformer"))
            write_published(trained, output / f"{run.name}-original")
        return folder

    def _base(self) -> tuple[VideoPipeline, Training, Transformer3DModel]:
        from muybridge.backbones.dit import Transformer3DModel
        from muybridge.training.stages.base_model import load_base

        base, how = load_base(self.base)
        transformer = base.backbone
        if not isinstance(transformer, Transformer3DModel):
            raise ConfigError(
                f"{self.base} has a U-Net, and this stage is for transformers; give base another, or train motion "
                "modules (motion-adapter) or a LoRA (lora) of this one."
            )
        return base, how, transformer

    def _objective(self, transformer: Transformer3DModel, prediction: str) -> ObjectiveSettings:
        """As said, or as the published transformers were trained, where this one gives a variance as they do."""
        if self.objective is not None:
            return self.objective
        config = transformer.transformer_config
        gives_variance = config.out_channels == 2 * config.latent_channels and prediction == "epsilon"
        if gives_variance and "timestep_shift" not in self.model_fields_set:
            return ObjectiveSettings(timesteps="logit-normal", learned_range=True)
        return ObjectiveSettings.shifted(self.timestep_shift)
