"""The stage that trains a SparseCtrl for a model that exists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from muybridge.training.data import BatchSource, TrainingData
from muybridge.training.stages.denoising import DenoisingStage
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import PipelineStage, RunSettings, StageWork, exported_part
from muybridge.types import SettingsDict

if TYPE_CHECKING:
    from muybridge.motion import TemporalConfig
    from muybridge.pipelines import VideoPipeline


_ROLES = {"rgb": "keyframes", "scribble": "sketches"}
"""What the network is for, as pipelines name it."""


@register_stage
class SparseControlStage(DenoisingStage, PipelineStage):
    """Train a SparseCtrl for keyframes or sketches beside a model that exists, which stays as it is."""

    parts: ClassVar[tuple[str, ...]] = ("keyframe_control",)

    method: Literal["sparse-control"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, with a U-Net."""
    kind: Literal["rgb", "scribble"] = "rgb"
    """For keyframes, or for sketches, which are drawn from the frames where the clips have none."""
    known: Literal["clips", "drawn"] = "clips"
    """Which frames are shown: those that the set of clips says, or the first (40 %), the first and the last (20 %), or
    up to half of them anywhere."""
    num_frames: int = Field(default=8, ge=1)
    whole_clip_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the batches with all 16 frames of fewer clips."""
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
        from muybridge.training.methods.sparse_control import (
            KnownFrames,
            SparseControlMethod,
            make_keyframe_control,
        )
        from muybridge.training.stages.base_model import load_base, require_unet, training_scheduler, wanted_clips

        base, how = load_base(self.base)
        unet = require_unet(base, self.base, "a SparseCtrl")
        config, factor = self._motion_config(), base.codec.spatial
        control = make_keyframe_control(unet, config, self.motion_levels, self.kind, factor)
        objective = self.make_objective(training_scheduler(base))
        method = SparseControlMethod(unet, control, base.vae, base.text_encoder, objective, how)
        wanted = replace(
            wanted_clips(base, self, self.caption_dropout, self.num_frames), whole_clip_share=self.whole_clip_share
        )

        def seen(clips: BatchSource) -> BatchSource:
            return KnownFrames(clips, self.seed)

        clips = data.keyframe_clips(wanted)
        batches = seen(clips) if self.known == "drawn" else clips
        return StageWork(method, batches, lambda: {"keyframe_control": control}, seen=seen)

    def pipeline(self, run: RunSettings, output: Path) -> VideoPipeline:
        """The model that was trained beside, with the SparseCtrl that came of it.

        Its default steps and guidance stay, unless the run file gives some.
        """
        from muybridge.training.stages.base_model import load_base

        base, _ = load_base(self.base)
        base.load_network(_ROLES[self.kind], str(exported_part(output, self.method, "keyframe_control")))
        base.register_to_config(**run.given_defaults)
        return base

    def _motion_config(self) -> TemporalConfig:
        from muybridge.motion.registry import make_config

        return cast("TemporalConfig", make_config("temporal", {"attentions_per_block": 1, **self.motion}))
