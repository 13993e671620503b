"""The stage that trains motion modules for a model that exists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from muybridge.errors import ConfigError
from muybridge.training.data import ClipsWanted, TrainingData
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import MotionSettings, PipelineStage, RunSettings, StageWork, exported_part

if TYPE_CHECKING:
    from muybridge.pipelines import VideoPipeline


@register_stage
class MotionAdapterStage(PipelineStage):
    """Train motion modules of any kind on a model that exists, whose own are taken out; all else of it is frozen."""

    parts: ClassVar[tuple[str, ...]] = ("motion_adapter",)

    method: Literal["motion-adapter"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, of any family that is trained."""
    num_frames: int | None = Field(default=None, ge=1, le=16)
    """Frames of a clip at a time, where the family is trained so; its usual number if not given."""
    whole_clip_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the batches with all 16 frames of fewer clips, likewise."""
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    motion: MotionSettings = MotionSettings()

    def check(self, data: TrainingData) -> None:
        """The kind of motion module, its settings, and whether the model is there."""
        from muybridge.motion.registry import make_config
        from muybridge.training.stages.base_model import check_base

        make_config(self.motion.kind, self.motion.config)
        check_base(self.base)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from muybridge.motion.integration import integrate_motion
        from muybridge.training.methods.adapters import MotionMethod
        from muybridge.training.objective.diffusion import DiffusionObjective
        from muybridge.training.objective.settings import ObjectiveSettings
        from muybridge.training.stages.base_model import load_base, networks_of, training_scheduler

        base, how = load_base(self.base)
        adapter = integrate_motion(base, self.motion.kind, mode="replace", config=self.motion.config).adapter
        objective = DiffusionObjective(training_scheduler(base), ObjectiveSettings.shifted(self.timestep_shift))
        method = MotionMethod(networks_of(base), objective, how)
        wanted = ClipsWanted(self.batch_size, self.seed, base.tokenizer, self.caption_dropout)
        if how.frames is not None:
            share = how.whole_clip_share if self.whole_clip_share is None else self.whole_clip_share
            frames = self.num_frames or how.frames
            batches = data.clips(replace(wanted, num_frames=frames, whole_clip_share=share))
        elif self.num_frames is not None or self.whole_clip_share is not None:
            raise ConfigError(f"{self.base} is trained on whole clips; leave num_frames and whole_clip_share out.")
        else:
            batches = data.whole_clips(wanted)
        return StageWork(method, batches, lambda: {"motion_adapter": adapter})

    def pipeline(self, run: RunSettings, output: Path) -> VideoPipeline:
        """The model that was trained on, with the motion modules that came of it.

        Its default steps and guidance stay, unless the run file gives some.
        """
        from muybridge.motion import MotionAdapter
        from muybridge.training.stages.base_model import load_base

        base, _ = load_base(self.base)
        base.set_motion_adapter(MotionAdapter.from_pretrained(exported_part(output, self.method, "motion_adapter")))
        base.register_to_config(**run.given_defaults)
        return base
