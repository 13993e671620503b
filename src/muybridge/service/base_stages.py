"""Stages that add something to a model that exists, and the models with what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from muybridge.backbones.unet.sparse_control import SparseControlModel
from muybridge.demo.batches import ClipBatches, ConditionedVideoBatches, KeyframeBatches
from muybridge.errors import ConfigError
from muybridge.motion import MotionAdapter, TemporalConfig
from muybridge.motion.integration import integrate_motion
from muybridge.motion.registry import make_config
from muybridge.pipelines import AnimateDiffPipeline, EasyAnimatePipeline
from muybridge.service.lora_training import LoraFolder, prepare_lora
from muybridge.service.runs import LoraStage, MotionAdapterStage, SparseControlStage, TrainingRun
from muybridge.service.stage_work import SavablePart, StageWork, exported_part
from muybridge.service.training_base import load_base, load_unet_base, training_scheduler
from muybridge.training.adapter_methods import TransformerMotionMethod
from muybridge.training.methods import DiffusionObjective, MotionMethod
from muybridge.training.sparse_control_method import SparseControlMethod, make_keyframe_control


class MotionAdapterWork(StageWork):
    """Motion modules of any kind on a model that exists."""

    def __init__(self, stage: MotionAdapterStage, _output: Path) -> None:
        """Build what is trained, and its batches."""
        base = load_base(stage.base)
        added = integrate_motion(base, stage.motion.kind, mode="replace", config=stage.motion.config)
        self.adapter = added.adapter
        objective = DiffusionObjective(training_scheduler(base), stage.timestep_shift)
        if isinstance(base, AnimateDiffPipeline):
            self.method = MotionMethod(base.unet, base.text_encoder, base.vae, objective)
            self.batches = ClipBatches(
                stage.batch_size,
                stage.num_frames or 8,
                stage.seed,
                base.tokenizer,
                stage.caption_dropout,
                0.25 if stage.whole_clip_share is None else stage.whole_clip_share,
            )
            return
        if stage.num_frames is not None or stage.whole_clip_share is not None:
            raise ConfigError(
                f"{stage.base} has a transformer, which is trained on whole clips; leave num_frames and "
                "whole_clip_share out."
            )
        self.method = TransformerMotionMethod(base.transformer, base.text_encoder, base.vae, objective)
        self.batches = ConditionedVideoBatches(
            stage.batch_size, stage.seed, base.tokenizer, stage.caption_dropout, still_shares=(0.0, 0.0)
        )

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"motion_adapter": self.adapter}


def pipeline_with_adapter(
    run: TrainingRun, stage: MotionAdapterStage, output: Path
) -> AnimateDiffPipeline | EasyAnimatePipeline:
    """The model that a finished stage has trained on, with the motion modules that came of it.

    Its default steps and guidance stay, unless the run file gives some.
    """
    base = load_base(stage.base)
    adapter = MotionAdapter.from_pretrained(exported_part(output, stage.method, "motion_adapter"))
    (base if isinstance(base, AnimateDiffPipeline) else base.transformer).set_motion_adapter(adapter)
    _take_defaults(base, run)
    return base


def _take_defaults(base: AnimateDiffPipeline | EasyAnimatePipeline, run: TrainingRun) -> None:
    given = run.model_fields_set & {"default_steps", "default_guidance"}
    base.register_to_config(**{name: getattr(run, name) for name in given})


class SparseControlWork(StageWork):
    """A SparseCtrl beside a model that exists."""

    def __init__(self, stage: SparseControlStage, _output: Path) -> None:
        """Build what is trained, and its batches."""
        base = load_unet_base(stage.base)
        self.control = make_keyframe_control(base.unet, control_config(stage), stage.motion_levels)
        objective = DiffusionObjective(training_scheduler(base), stage.timestep_shift)
        self.method = SparseControlMethod(base.unet, self.control, base.vae, base.text_encoder, objective)
        self.batches = KeyframeBatches(
            stage.batch_size,
            stage.num_frames,
            stage.seed,
            base.tokenizer,
            stage.caption_dropout,
            stage.whole_clip_share,
        )

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"keyframe_control": self.control}


def control_config(stage: SparseControlStage) -> TemporalConfig:
    """Settings of the SparseCtrl's own motion modules.

    Raises:
        ConfigError: settings that they do not have.
    """
    return cast("TemporalConfig", make_config("temporal", {"attentions_per_block": 1, **stage.motion}))


def pipeline_with_control(run: TrainingRun, stage: SparseControlStage, output: Path) -> AnimateDiffPipeline:
    """The model that a finished stage has trained beside, with the SparseCtrl for keyframes that came of it.

    Its default steps and guidance stay, unless the run file gives some.
    """
    base = load_unet_base(stage.base)
    base.set_sparse_control(SparseControlModel.from_pretrained(exported_part(output, stage.method, "keyframe_control")))
    _take_defaults(base, run)
    return base


class LoraWork(StageWork):
    """A LoRA on a model that exists."""

    def __init__(self, stage: LoraStage, _output: Path) -> None:
        """Build what is trained, and its batches."""
        self.method, self.batches = prepare_lora(stage)
        self._folder = LoraFolder(self.method, stage.dialect)

    def trained_parts(self) -> dict[str, SavablePart]:
        """What was trained, as it is now."""
        return {"lora": self._folder}
