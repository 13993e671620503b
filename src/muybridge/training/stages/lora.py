"""The stage that trains a LoRA for a model that exists, and what all stages of which a LoRA comes have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from muybridge.errors import ConfigError
from muybridge.training.data import TrainingData
from muybridge.training.settings import Settings
from muybridge.training.stages.denoising import DenoisingStage
from muybridge.training.stages.lora_metadata import (
    AboutSettings,
    hashes_of_base,
    network_metadata,
    publish_lora,
    run_metadata,
)
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import BaseChoice, LastStage, RunSettings, StageWork, exported_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muybridge.pipelines import VideoPipeline
    from muybridge.pipelines.family import Training
    from muybridge.training.methods.denoise import DenoisingMethod
    from muybridge.training.methods.lora import LoraMethod, LoraParts, LoraShape

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers and peft look for in the folder of a LoRA."""

PartName = Literal["backbone", "text_encoder", "text_encoder_2"]


class PartSettings(Settings):
    """How one part of the model learns, where it does otherwise than the rest."""

    layers: str | None = None
    """Which layers: of the backbone as the stage's `layers`; of a text encoder attention (the default), linear, or a
    regular expression."""
    rate: float = Field(default=1.0, gt=0)
    """Share of the stage's learning rates."""


class LoraOutput(DenoisingStage, LastStage):
    """A stage of which a LoRA comes. The model it is for stays as it is."""

    parts: ClassVar[tuple[str, ...]] = ("lora",)
    product: ClassVar[str] = "a LoRA"
    has_defaults: ClassVar[bool] = False
    knows_what_was: ClassVar[bool] = True

    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, of any family that is trained."""
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    """The change is scaled by alpha / rank; by default half the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the inputs of every change that are left out in training."""
    dora: bool = False
    """Whether the lengths of the changed rows learn too (DoRA): closer to training all, and a tenth slower or more."""
    dialect: Literal["diffusers", "kohya", "original"] | None = "diffusers"
    """Names in the file, and so the programs that read it besides this one; original is AnimateDiff's own. Where it is
    none, that for a U-Net, and diffusers for a transformer."""
    about: AboutSettings = AboutSettings()
    """What the file says of itself besides."""

    def check(self, data: TrainingData) -> None:
        """Whether the model is there."""
        from muybridge.training.stages.base_model import check_base

        check_base(self.base)

    def publish(self, run: RunSettings, output: Path) -> Path:
        """Write the LoRA and what is known of it to `output/NAME.safetensors`; a file that is there is replaced."""
        found = exported_part(output, self.method, "lora") / LORA_FILE
        known = {**run_metadata(self, self.about, run, output), **hashes_of_base(self.base)}
        return publish_lora(found, output / f"{run.name}.safetensors", known)

    def shape(self) -> LoraShape:
        """Of the LoRA."""
        from muybridge.training.methods.lora import LoraShape

        return LoraShape(self.rank, self.alpha, self.dropout, self.dora, self.seed)

    def folder_of(self, method: LoraMethod, base: VideoPipeline, layers: str) -> LoraFolder:
        """What is exported.

        Raises:
            ConfigError: the dialect cannot express it.
        """
        from muybridge.checkpoints.lora import check_dialect

        root = base.family.lora.root
        dialect = self.dialect or ("original" if root == "unet" else "diffusers")
        check_dialect(method.changes(), root, dialect)
        return LoraFolder(method, dialect, network_metadata(self.shape(), base, self.base, layers))


@register_stage
class LoraStage(LoraOutput):
    """Train a LoRA for a model that exists, which stays as it is."""

    method: Literal["lora"]
    taught: str | None = None
    """What all clips show and no caption says, such as a motion or a colour; by default clips are of all kinds, and
    captions say what they show."""
    layers: str = "spatial"
    """Which layers learn: motion, spatial, linear, or a regular expression; see `methods.lora.LORA_LAYERS`."""
    train: dict[PartName, PartSettings] = Field(default_factory=lambda: {"backbone": PartSettings()})
    """What learns, and how: `{backbone: {}, text_encoder: {rate: 0.5}}`; the backbone alone if not given."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a clip at a time, where the family is trained so; its usual number if not given."""

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if not self.train:
            raise ValueError("train names the parts that learn, and here it names none; leave it out for the backbone")
        own = self.train.get("backbone")
        if own is not None and own.layers is not None and "layers" in self.model_fields_set:
            raise ValueError("layers and train.backbone.layers both say which layers learn; leave one of them out")
        return self

    def check(self, data: TrainingData) -> None:
        """What is taught, the patterns of layers, and whether the model is there."""
        from muybridge.training.methods.lora import TEXT_LAYERS, layer_pattern

        data.check_taught(self.taught)
        parts = self.lora_parts()
        if parts.backbone is not None:
            layer_pattern(parts.backbone)
        for layers in parts.text.values():
            layer_pattern(layers, TEXT_LAYERS)
        super().check(data)

    def model_before(self) -> BaseChoice:
        """The model that the LoRA is for."""
        return BaseChoice(self.base)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: layers or parts that the model does not have, or settings for a family that is trained
                otherwise.
            CheckpointError: the model cannot be loaded.
        """
        from muybridge.training.methods.lora import LoraMethod
        from muybridge.training.stages.base_model import load_base, wanted_clips

        base, how = load_base(self.base)
        if how.frames is None and self.num_frames is not None:
            raise ConfigError(f"{self.base} is trained on whole clips; leave num_frames out.")
        parts = self.lora_parts()
        method = LoraMethod(denoising_method(self, base, how), parts, self.shape(), base.family.lora)
        frames = self.num_frames or how.frames
        wanted = wanted_clips(base, self, self.caption_dropout, frames, how, keeps_text=not parts.text)
        folder = self.folder_of(method, base, parts.backbone or "")
        return StageWork(method, data.taught_clips(wanted, self.taught), lambda: {"lora": folder}, pipeline=base)

    def lora_parts(self) -> LoraParts:
        """What the LoRA changes."""
        from muybridge.training.methods.lora import LoraParts

        own = self.train.get("backbone")
        text = {name: each.layers or "attention" for name, each in self.train.items() if name != "backbone"}
        rates = {name: each.rate for name, each in self.train.items() if each.rate != 1.0}
        return LoraParts(None if own is None else own.layers or self.layers, text, rates)


def denoising_method(stage: DenoisingStage, base: VideoPipeline, how: Training) -> DenoisingMethod:
    """The method of a whole model, with the objective of a stage."""
    from muybridge.training.methods.denoise import DenoisingMethod
    from muybridge.training.stages.base_model import networks_of, training_scheduler

    return DenoisingMethod(networks_of(base), stage.make_objective(training_scheduler(base)), how)


@dataclass(frozen=True)
class LoraFolder:
    """A LoRA as it is now, to be written as a folder."""

    method: LoraMethod
    dialect: Literal["diffusers", "kohya", "original"]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def save_pretrained(self, save_directory: Path, /) -> None:
        """Write the folder.

        Raises:
            OutputError: it cannot be written.
        """
        save_directory.mkdir(parents=True, exist_ok=True)
        self.method.save(save_directory / LORA_FILE, self.dialect, self.metadata)
