"""What each stage of a run trains, on which batches, and the parts of the pipeline that come out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from muybridge.checkpoints import locate_model
from muybridge.demo import world
from muybridge.demo.lora_batches import triples_with
from muybridge.motion.registry import make_config
from muybridge.service.base_stages import LoraWork, MotionAdapterWork, SparseControlWork, control_config
from muybridge.service.image_stages import ImageWork, MotionWork, TextWork, VAEWork
from muybridge.service.runs import (
    ImageStage,
    LoraStage,
    MotionAdapterStage,
    MotionStage,
    SparseControlStage,
    Stage,
    StageSettings,
    TextStage,
    VAEStage,
    VideoDecoderStage,
    VideoRefineStage,
    VideoStage,
    VideoTextStage,
    VideoVAEStage,
)
from muybridge.service.stage_work import StageWork
from muybridge.service.video_stages import VideoDecoderWork, VideoRefineWork, VideoTextWork, VideoVAEWork, VideoWork
from muybridge.training.lora import layer_pattern

_WORKS: Mapping[type[StageSettings], Callable[[Any, Path], StageWork]] = MappingProxyType(
    {
        VAEStage: VAEWork,
        TextStage: TextWork,
        ImageStage: ImageWork,
        MotionStage: MotionWork,
        VideoVAEStage: VideoVAEWork,
        VideoTextStage: VideoTextWork,
        VideoStage: VideoWork,
        VideoRefineStage: VideoRefineWork,
        VideoDecoderStage: VideoDecoderWork,
        MotionAdapterStage: MotionAdapterWork,
        SparseControlStage: SparseControlWork,
        LoraStage: LoraWork,
    }
)


def check_stage(stage: Stage) -> None:
    """Find what only the networks and their data know to be wrong, before stages ahead are trained for nothing.

    Raises:
        ConfigError: an unknown kind of motion module, or settings it does not have; nothing of the toy world.
        CheckpointError: the model to build on is not there.
    """
    if isinstance(stage, MotionStage | MotionAdapterStage):
        make_config(stage.motion.kind, stage.motion.config)
    if isinstance(stage, SparseControlStage):
        control_config(stage)
    if isinstance(stage, VideoStage | VideoDecoderStage):
        world.oversampled(stage.oversample)
    if isinstance(stage, LoraStage):
        triples_with(stage.taught)
        layer_pattern(stage.layers)
    if isinstance(stage, MotionAdapterStage | SparseControlStage | LoraStage) and not Path(stage.base).is_file():
        locate_model(stage.base)


def prepare_stage(stage: Stage, output: Path) -> StageWork:
    """Build what a stage needs from the parts of the stages before it, which lie in `output`."""
    return _WORKS[type(stage)](stage, output)
