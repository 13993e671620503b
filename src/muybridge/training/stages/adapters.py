"""The stage that trains motion modules for a model that exists."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from muybridge.errors import ConfigError
from muybridge.training.data import TrainingData
from muybridge.training.stages.denoising import DenoisingStage
from muybridge.training.stages.lora import LORA_FILE
from muybridge.training.stages.motion_lora import DomainAdapterStage
from muybridge.training.stages.registry import method_of, register_stage
from muybridge.training.stages.stage import (
    BaseChoice,
    MotionSettings,
    PipelineStage,
    RunSettings,
    StageWork,
    exported_part,
)

if TYPE_CHECKING:
    from muybridge.motion import MotionHost
    from muybridge.pipelines import VideoPipeline
    from muybridge.pipelines.family import Training

_DOMAIN_STAGE = method_of(DomainAdapterStage)
_LAYOUT_NAMES = {"original": "{}.safetensors", "diffusers": "{}-diffusers"}
"""What an adapter in another program's layout is called, after the run."""


@register_stage
class MotionAdapterStage(DenoisingStage, PipelineStage):
    """Train the motion modules of a model that exists, of any kind; all else of it is frozen."""

    parts: ClassVar[tuple[str, ...]] = ("motion_adapter",)

    method: Literal["motion-adapter"]
    base: str = "demo/animatediff"
    """The model: a shipped one, a folder, or a hub id, of any family that is trained. For fresh modules it may be an
    image model, which is then trained with AnimateDiff's noise levels."""
    start: str = "fresh"
    """What the modules begin as: fresh ones of `motion` in place of the model's, its own, or those of a file or folder,
    such as a published motion module."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a clip at a time, where the family is trained so; its usual number if not given."""
    whole_clip_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the batches with whole clips, fewer of them, likewise."""
    motion: MotionSettings = MotionSettings()
    domain_adapter: str | None = None
    """A LoRA of the image layers that is in place while the modules are trained, and frozen: a file, or
    `domain-adapter` for what the stage of that name has made before in this run. The model comes without it."""
    layouts: tuple[Literal["original", "diffusers"], ...] = ()
    """Layouts of other programs that the modules are written in besides, next to the model."""

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # one stage can do with or without another
        """The stage that makes the domain adapter, where that is to come of this run."""
        return (_DOMAIN_STAGE,) if self.domain_adapter == _DOMAIN_STAGE else ()

    @field_validator("motion")
    @classmethod
    def _one_beginning(cls, motion: MotionSettings, info: ValidationInfo) -> MotionSettings:
        start = info.data.get("start", "fresh")
        if start != "fresh":
            raise ValueError(f"motion is of fresh modules, and these begin as {start!r}; leave motion out, or start")
        return motion

    def check(self, data: TrainingData) -> None:
        """The kind of motion module, its settings, and whether the model is there."""
        from muybridge.motion.registry import make_config
        from muybridge.training.stages.base_model import check_base

        config = make_config(self.motion.kind, self.motion.config)
        if self.layouts and self.start == "fresh":
            frames = getattr(config, "trained_frames", None)
            if self.motion.kind != "temporal" or frames is None:
                raise ConfigError(
                    "Layouts of other programs have modules of the kind temporal that say how many frames they were "
                    "trained on; say motion.config.trained_frames, such as 16, or leave layouts out."
                )
        check_base(self.base)

    def model_before(self) -> BaseChoice:
        """The model with the modules that it begins with.

        Raises:
            ConfigError: these are fresh, and have nothing to keep.
        """
        if self.start == "fresh":
            raise ConfigError("Fresh motion modules know nothing to keep; leave data.prior out, or say start.")
        return BaseChoice(self.base, None if self.start == "own" else self.start)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: a model without motion modules of its own to begin with, or settings for another family.
            CheckpointError: the model, the modules or the domain adapter cannot be loaded.
        """
        from muybridge.motion.integration import find_host, integrate_motion
        from muybridge.training.methods.adapters import MotionMethod
        from muybridge.training.stages.base_model import clips_for, networks_of, training_scheduler, wanted_clips

        base, how = self._base()
        if self.start == "fresh":
            integrate_motion(base, self.motion.kind, mode="replace", config=self.motion.config)
        host: MotionHost = find_host(base)
        adapter = host.motion_adapter
        if adapter is None:
            raise ConfigError(f"{self.base} has no motion modules to begin with; leave start out for fresh ones.")
        if self.domain_adapter is not None:
            base.load_lora_weights(self._domain_adapter(output))
        objective = self.make_objective(training_scheduler(base))
        method = MotionMethod(networks_of(base), objective, how, keeps_first=self.start != "fresh")
        wanted = wanted_clips(base, self, self.caption_dropout, self.num_frames, cached_by=how)
        batches = clips_for(data, wanted, how, self.base, self.whole_clip_share)
        return StageWork(method, batches, lambda: {"motion_adapter": adapter}, pipeline=base)

    def pipeline(self, run: RunSettings, output: Path) -> VideoPipeline:
        """The model that was trained on, with the motion modules that came of it.

        Its default steps and guidance stay, unless the run file gives some.
        """
        from muybridge.motion import MotionAdapter

        base, _ = self._base()
        base.set_motion_adapter(MotionAdapter.from_pretrained(exported_part(output, self.method, "motion_adapter")))
        base.register_to_config(**run.given_defaults)
        return base

    def publish(self, run: RunSettings, output: Path) -> Path:
        """Write the pipeline to `output/model`, and what else is asked for beside it."""
        from muybridge.checkpoints.motion_export import write_motion
        from muybridge.files.atomic import new_file
        from muybridge.motion import MotionAdapter

        folder = super().publish(run, output)
        for layout in self.layouts:
            target = output / _LAYOUT_NAMES[layout].format(run.name)
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            write_motion(
                MotionAdapter.from_pretrained(exported_part(output, self.method, "motion_adapter")), target, layout
            )
        if self.needs:
            with new_file(output / f"{run.name}-domain-adapter.safetensors") as temporary:
                shutil.copyfile(self._domain_adapter(output), temporary)
        return folder

    def built_on(self, output: Path) -> list[Path]:
        """Besides the model, the motion modules that it begins with, and the domain adapter."""
        from muybridge.checkpoints.locate import locate_weights

        files = [self.start] if self.start not in ("fresh", "own") else []
        if self.domain_adapter is not None:
            files.append(str(self._domain_adapter(output)))
        return [*super().built_on(output), *map(locate_weights, files)]

    def _base(self) -> tuple[VideoPipeline, Training]:
        from muybridge.training.stages.base_model import load_base

        if self.start not in ("fresh", "own"):
            return load_base(self.base, self.start)
        base, how = load_base(self.base, needs_motion=self.start == "own")
        if base.backbone.motion_adapter is None and how.prepare_image_model is not None:
            how.prepare_image_model(base)
        return base, how

    def _domain_adapter(self, output: Path) -> Path:
        if self.needs:
            return exported_part(output, _DOMAIN_STAGE, "lora") / LORA_FILE
        return Path(str(self.domain_adapter))
