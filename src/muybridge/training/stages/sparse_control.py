"""The stage that trains a SparseCtrl for a model that exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from muybridge.errors import ConfigError
from muybridge.training.data import ClipsWanted, TrainingData
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import PipelineStage, RunSettings, StageWork, exported_part
from muybridge.types import SettingsDict

if TYPE_CHECKING:
    from muybridge.backbones.unet import UNet3DConditionModel
    from muybridge.motion import TemporalConfig
    from muybridge.pipelines import VideoPipeline
    from muybridge.pipelines.family import Training


@register_stage
class SparseControlStage(PipelineStage):
    """Train a SparseCtrl for keyframes beside a model that exists, which stays as it is with its motion modules."""

    parts: ClassVar[tuple[str, ...]] = ("keyframe_control",)

    method: Literal["sparse-control"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, with a U-Net."""
    num_frames: int = Field(default=8, ge=1, le=16)
    whole_clip_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the batches with all 16 frames of fewer clips."""
    timestep_shift: float = Field(default=3.0, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    motion: SettingsDict = Field(default_factory=dict)
    """Settings of its own motion modules, of the kind `temporal`; one attention each unless they say otherwise."""
    motion_levels: int | None = Field(default=None, ge=1)
    """Levels of the down path with motion modules, from the finest on; all if not given."""

    def check(self, data: TrainingData) -> None:
        """The settings of the motion modules, and whether the model is there."""
        from muybridge.training.stages.base_model import check_base

        self._motion_config()
        check_base(self.base)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches."""
        from muybridge.training.methods.sparse_control import SparseControlMethod, make_keyframe_control
        from muybridge.training.objective.diffusion import DiffusionObjective
        from muybridge.training.objective.settings import ObjectiveSettings
        from muybridge.training.stages.base_model import training_scheduler

        base, how = self._base()
        unet = cast("UNet3DConditionModel", base.backbone)  # as `_base` has found out
        control = make_keyframe_control(unet, self._motion_config(), self.motion_levels)
        objective = DiffusionObjective(training_scheduler(base), ObjectiveSettings.shifted(self.timestep_shift))
        method = SparseControlMethod(unet, control, base.vae, base.text_encoder, objective, how)
        wanted = ClipsWanted(
            self.batch_size, self.seed, base.tokenizer, self.caption_dropout, self.num_frames, self.whole_clip_share
        )
        return StageWork(method, data.keyframe_clips(wanted), lambda: {"keyframe_control": control})

    def pipeline(self, run: RunSettings, output: Path) -> VideoPipeline:
        """The model that was trained beside, with the SparseCtrl for keyframes that came of it.

        Its default steps and guidance stay, unless the run file gives some.
        """
        base, _ = self._base()
        base.load_network("keyframes", str(exported_part(output, self.method, "keyframe_control")))
        base.register_to_config(**run.given_defaults)
        return base

    def _base(self) -> tuple[VideoPipeline, Training]:
        from muybridge.backbones.unet import UNet3DConditionModel
        from muybridge.training.stages.base_model import load_base

        base, how = load_base(self.base)
        if not isinstance(base.backbone, UNet3DConditionModel):
            raise ConfigError(
                f"{self.base} has a transformer, and a SparseCtrl is for models with a U-Net; give base another."
            )
        return base, how

    def _motion_config(self) -> TemporalConfig:
        from muybridge.motion.registry import make_config

        return cast("TemporalConfig", make_config("temporal", {"attentions_per_block": 1, **self.motion}))
