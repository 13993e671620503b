"""The stage that distils a model that exists to a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from muybridge.training.data import BatchSource, TrainingData
from muybridge.training.stages.lora import LoraOutput, denoising_method
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import StageWork

if TYPE_CHECKING:
    from muybridge.training.objective.consistency import Distilling


@register_stage
class DistilStage(LoraOutput):
    """Train a LoRA with which a model makes videos in a few steps without guidance (a consistency model).

    Videos are then made with a guidance of 1: with the scheduler `lcm` in 4 to 8 steps (phases: 1), or with `ddim` in
    as many steps as there are phases.
    """

    method: Literal["distil"]
    rank: int = Field(default=64, ge=1)
    layers: str = "linear"
    """Which layers learn: motion, spatial, linear, or a regular expression; see `methods.lora.LORA_LAYERS`."""
    solver_steps: int = Field(default=50, ge=2)
    """Steps of the model as it is, of which the student learns to skip most."""
    guidance: tuple[float, float] = (6.0, 16.0)
    """Scales of guidance between which the teacher's is drawn; the student's videos look as with one of them."""
    huber: float | None = Field(default=None, gt=0)
    """Of a pseudo-Huber loss, such as 0.001; by default the mean square."""
    phases: int = Field(default=1, ge=1)
    """1 for a latent consistency model; more for a phased one, easier to learn and for that many steps only."""
    target: Literal["consistency", "teacher"] = "consistency"
    """With several phases: teacher for where the teacher arrives by the end of a phase. A step takes longer, by the
    steps of the solver in a phase, and far fewer are needed."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a clip at a time, where the family is trained so; its usual number if not given."""
    whole_clip_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the batches with whole clips, fewer of them, likewise."""
    caption_dropout: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("objective", "timestep_shift")
    @classmethod
    def _has_no_other_objective(cls, _: object, info: ValidationInfo) -> object:
        raise ValueError(
            f"a model is distilled against itself, at noise levels of its solver; leave {info.field_name} out"
        )

    @field_validator("guidance")
    @classmethod
    def _guides_more_or_less(cls, guidance: tuple[float, float]) -> tuple[float, float]:
        low, high = guidance
        if not 1 <= low <= high:
            raise ValueError("guidance is two scales of at least 1, the smaller first")
        return guidance

    def check(self, data: TrainingData) -> None:
        """The pattern of layers, what phases and solver make of each other, and whether the model is there."""
        from muybridge.training.methods.lora import layer_pattern

        layer_pattern(self.layers)
        self._distilling()
        super().check(data)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: layers that the model does not have, or settings for a family that is trained otherwise.
            CheckpointError: the model cannot be loaded.
        """
        from muybridge.training.empty_captions import WithEmptyCaption
        from muybridge.training.methods.consistency import ConsistencyMethod
        from muybridge.training.methods.lora import LoraMethod
        from muybridge.training.objective.consistency import ConsistencyObjective
        from muybridge.training.stages.base_model import clips_for, load_base, training_scheduler, wanted_clips

        base, how = load_base(self.base)
        lora = LoraMethod(denoising_method(self, base, how), self.layers, self.shape(), base.family.lora)
        method = ConsistencyMethod(lora, ConsistencyObjective(training_scheduler(base), self._distilling()))
        wanted = wanted_clips(base, self, self.caption_dropout, self.num_frames)

        def seen(clips: BatchSource) -> BatchSource:
            return WithEmptyCaption(clips, base.tokenizer)

        clips = seen(clips_for(data, wanted, how, self.base, self.whole_clip_share))
        folder = self.folder_of(lora, base, self.layers)
        return StageWork(method, clips, lambda: {"lora": folder}, seen=seen)

    def _distilling(self) -> Distilling:
        from muybridge.training.objective.consistency import Distilling

        return Distilling(self.solver_steps, self.guidance, self.huber, self.phases, self.target)
