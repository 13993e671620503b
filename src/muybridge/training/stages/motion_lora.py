"""Stages that train the LoRAs that AnimateDiff publishes: of motion modules, and the domain adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from muybridge.errors import ConfigError
from muybridge.training.camera_moves import CameraMove
from muybridge.training.data import Batch, BatchSource, TrainingData
from muybridge.training.stages.lora import LoraOutput, denoising_method
from muybridge.training.stages.registry import register_stage
from muybridge.training.stages.stage import BaseChoice, StageWork


@register_stage
class MotionLoraStage(LoraOutput):
    """Train a LoRA of the self-attentions of the motion modules, on clips that share a motion, or a camera move."""

    method: Literal["motion-lora"]
    rank: int = Field(default=64, ge=1)
    dialect: Literal["diffusers", "kohya", "original"] | None = None
    camera: CameraMove | None = None
    """What a camera does over the first frames of the clips, which takes the place of their own motion; a roll turns
    what is shown the way that it is named after, and what is panned to the right goes left."""
    camera_extent: tuple[float, float] = (0.15, 0.4)
    """How far the camera goes in a clip, as shares of the side between which it is drawn."""
    taught: str | None = None
    """What all clips show and no caption says, where the set of clips can choose them so."""
    num_frames: int | None = Field(default=None, ge=2)
    """Frames of a clip at a time, where the family is trained so; its usual number if not given."""

    @field_validator("camera_extent")
    @classmethod
    def _camera_goes_somewhere(cls, extent: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        if info.data.get("camera", True) is None:
            raise ValueError("camera_extent is of a camera move; say camera too, such as zoom-in, or leave it out")
        low, high = extent
        if not 0 < low <= high < 1:
            raise ValueError("camera_extent is two shares of the side, the smaller first, above 0 and below 1")
        return extent

    def check(self, data: TrainingData) -> None:
        """What is taught, and whether the model is there."""
        data.check_taught(self.taught)
        super().check(data)

    def model_before(self) -> BaseChoice:
        """The model that the LoRA is for.

        Raises:
            ConfigError: of camera moves, which would be made of what is to be kept as well.
        """
        if self.camera is not None:
            raise ConfigError("data.prior is for clips as they are, and camera changes them; leave one of the two out.")
        return BaseChoice(self.base)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: a model without motion modules, or one that is trained on whole clips with num_frames.
            CheckpointError: the model cannot be loaded.
        """
        from muybridge.training.methods.lora import LoraMethod
        from muybridge.training.stages.base_model import load_base, wanted_clips

        base, how = load_base(self.base)
        if how.frames is None and self.num_frames is not None:
            raise ConfigError(f"{self.base} is trained on whole clips; leave num_frames out.")
        method = LoraMethod(denoising_method(self, base, how), "motion", self.shape(), base.family.lora)
        cached_by = how if self.camera is None else None
        wanted = wanted_clips(base, self, self.caption_dropout, self.num_frames or how.frames, cached_by)
        folder = self.folder_of(method, base, "motion")
        clips = self._seen(data.taught_clips(wanted, self.taught))
        return StageWork(method, clips, lambda: {"lora": folder}, pipeline=base, seen=self._seen)

    def _seen(self, clips: BatchSource) -> BatchSource:
        if self.camera is None:
            return clips
        from muybridge.training.camera import CameraClips

        return CameraClips(clips, self.camera, self.camera_extent, self.seed)


@register_stage
class DomainAdapterStage(LoraOutput):
    """Train a LoRA of the image layers on single frames: how the clips look, so that motion need not learn it.

    As in AnimateDiff's version 3: the motion modules are trained with it in place, and videos made without it, or with
    less of it. The model's own motion modules take no part.
    """

    method: Literal["domain-adapter"]
    rank: int = Field(default=128, ge=1)
    dialect: Literal["diffusers", "kohya", "original"] | None = None

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        """Build what is trained, and its batches.

        Raises:
            ConfigError: a model with a transformer.
            CheckpointError: the model cannot be loaded.
        """
        from muybridge.training.methods.lora import LoraMethod
        from muybridge.training.stages.base_model import load_base, require_unet, wanted_clips

        base, how = load_base(self.base, needs_motion=False)
        require_unet(base, self.base, "a domain adapter")
        base.remove_motion_adapter()
        method = LoraMethod(denoising_method(self, base, how), "spatial", self.shape(), base.family.lora)
        wanted = wanted_clips(base, self, self.caption_dropout, cached_by=how)
        folder = self.folder_of(method, base, "spatial")
        frames = data.clips(replace(wanted, num_frames=1))
        return StageWork(method, frames, lambda: {"lora": folder}, seen=_first_frames)


def _first_frames(clips: BatchSource) -> BatchSource:
    """As single frames, which is what is trained on, and looked at no more slowly."""

    def batch(index: int) -> Batch:
        found = clips(index)
        first = {name: found[name][:, :1] for name in ("pixels", "unknown")}
        return {**found, **first, "frame_positions": found["frame_positions"][:1]}

    return batch
