"""What looks on while a stage is trained, as its settings ask for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from muybridge.training.clip_sets import ClipSets
from muybridge.training.data import Batch, BatchSource, TrainingData
from muybridge.training.monitoring.held_out import HeldOutLoss
from muybridge.training.monitoring.observing import Observer
from muybridge.training.monitoring.report import ReportFile
from muybridge.training.monitoring.sheets import MadeClip, MakeClip, Sample, SampleSheets
from muybridge.training.monitoring.updates import UpdateSizes
from muybridge.training.stages.stage import Stage, StageWork

logger = logging.getLogger(__name__)

_FAR = 10**9
"""Number of a batch that no training reaches."""
_NOT_LOOKED_AT = {"latents", "text_states", "prior", "loss_weights"}
"""What batches have to train faster, or to keep what the model can do already; looks do without."""


def observers_of(stage: Stage, work: StageWork, data: TrainingData, run_folder: Path) -> list[Observer]:
    """None where the stage is not looked at.

    Sizes of updates always; losses at fixed noise of the clips that are trained on, and of others where some are held
    out or clips never end; sheets where there are prompts, and a pipeline to make them with; last, the report of the
    run, of what the others found.
    """
    asked = stage.evaluation
    every = asked.interval(stage.steps)
    if every is None:
        return []
    found: list[Observer] = [UpdateSizes(every, stage.schedule.warmup_steps)]
    if (measured := _measured_clips(stage, work, data)) is not None:
        held_out, trained = measured
        found.append(HeldOutLoss(held_out, trained, every, asked.batches, asked.noises))
    if work.pipeline is not None and asked.prompts:
        samples = [Sample(prompt, asked.seed) for prompt in asked.prompts]
        looks = data.looks if isinstance(data, ClipSets) else None
        found.append(SampleSheets(_maker(work.pipeline), samples, every, looks and looks.trained))
    return [*found, ReportFile(run_folder, every)]


def _measured_clips(stage: Stage, work: StageWork, data: TrainingData) -> tuple[BatchSource | None, BatchSource] | None:
    """Clips that are not trained on, where there are some, and clips that are; None where nothing can be measured."""
    if getattr(data, "is_endless", False):
        return _never_reached(work.batches), work.batches
    looks = data.looks if isinstance(data, ClipSets) else None
    if looks is None or looks.trained is None:
        return None
    trained = work.seen(looks.trained)
    if missing := sorted(work.batches(0).keys() - _NOT_LOOKED_AT - trained(0).keys()):
        logger.warning(
            "no held-out loss of %s: its batches also have %s, which StageWork.seen is to add",
            stage.method,
            ", ".join(missing),
        )
        return None
    return None if looks.held_out is None else work.seen(looks.held_out), trained


def _never_reached(batches: BatchSource) -> BatchSource:
    """Batches that training does not reach; those that say of which step they are, say a first one."""

    def batch(index: int) -> Batch:
        found = batches(_FAR + index)
        return {**found, "step": batches(index)["step"]} if "step" in found else found

    return batch


def _maker(pipeline: Any) -> MakeClip:
    pipeline.set_progress_bar_config(disable=True)

    def make(prompt: str, seed: int) -> MadeClip:
        [latents] = pipeline(prompt, seed=seed, output_type="latent")
        return MadeClip(np.concatenate(list(pipeline.decode(latents, seed=seed))), latents)

    return make
