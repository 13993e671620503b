"""The stage that trains a LoRA for a model that exists."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file
from muybridge.training.data import ClipsWanted, TrainingData
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import LastStage, RunSettings, StageWork, exported_part

if TYPE_CHECKING:
    from muybridge.training.methods.lora import LoraMethod

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers and peft look for in the folder of a LoRA."""


@register_stage
class LoraStage(LastStage):
    """Train a LoRA for a model that exists, which stays as it is."""

    parts: ClassVar[tuple[str, ...]] = ("lora",)
    product: ClassVar[str] = "a LoRA"
    has_defaults: ClassVar[bool] = False

    method: Literal["lora"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, of any family that is trained."""
    taught: str | None = None
    """What all clips show and no caption says, such as a motion or a colour; by default clips are of all kinds, and
    captions say what they show."""
    layers: str = "spatial"
    """Which layers learn: motion, spatial, linear, or a regular expression; see `methods.lora.LORA_LAYERS`."""
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    """The change is scaled by alpha / rank; by default half the rank."""
    dialect: Literal["diffusers", "kohya"] = "diffusers"
    """Names in the file, and so the programs that read it besides this one."""
    num_frames: int | None = Field(default=None, ge=1, le=16)
    """Frames of a clip at a time, where the family is trained so; its usual number if not given."""
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)

    def check(self, data: TrainingData) -> None:
        """What is taught, the pattern of layers, and whether the model is there."""
        from muybridge.training.methods.lora import layer_pattern
        from muybridge.training.stages.base_model import check_base

        data.check_taught(self.taught)
        layer_pattern(self.layers)
        check_base(self.base)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: layers that the model does not have, or settings for a family that is trained otherwise.
            CheckpointError: the model cannot be loaded.
        """
        from muybridge.training.methods.denoise import DenoisingMethod
        from muybridge.training.methods.lora import LoraMethod
        from muybridge.training.objective.diffusion import DiffusionObjective
        from muybridge.training.objective.settings import ObjectiveSettings
        from muybridge.training.stages.base_model import load_base, networks_of, training_scheduler

        base, how = load_base(self.base)
        if how.frames is None and self.num_frames is not None:
            raise ConfigError(f"{self.base} is trained on whole clips; leave num_frames out.")
        objective = DiffusionObjective(training_scheduler(base), ObjectiveSettings.shifted(self.timestep_shift))
        denoising = DenoisingMethod(networks_of(base), objective, how)
        method = LoraMethod(denoising, self.layers, self.rank, self.alpha, self.seed, base.family.lora)
        frames = self.num_frames or how.frames
        wanted = ClipsWanted(self.batch_size, self.seed, base.tokenizer, self.caption_dropout, frames)
        folder = _LoraFolder(method, self.dialect)
        return StageWork(method, data.taught_clips(wanted, self.taught), lambda: {"lora": folder})

    def publish(self, run: RunSettings, output: Path) -> Path:
        """Copy the LoRA as it was trained to `output/NAME.safetensors`; a file that is there is replaced."""
        target = output / f"{run.name}.safetensors"
        with new_file(target) as temporary:
            shutil.copyfile(exported_part(output, self.method, "lora") / LORA_FILE, temporary)
        return target


@dataclass(frozen=True)
class _LoraFolder:
    """A LoRA as it is now, to be written as a folder."""

    method: LoraMethod
    dialect: Literal["diffusers", "kohya"]

    def save_pretrained(self, save_directory: Path, /) -> None:
        """Write the folder.

        Raises:
            OutputError: it cannot be written.
        """
        save_directory.mkdir(parents=True, exist_ok=True)
        self.method.save(save_directory / LORA_FILE, self.dialect)
