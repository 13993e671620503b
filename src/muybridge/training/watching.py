"""What looks on while a stage is trained, as its settings ask for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from muybridge.training.clip_sets import ClipSets
from muybridge.training.data import TrainingData
from muybridge.training.monitoring.held_out import HeldOutLoss
from muybridge.training.monitoring.observing import Observer
from muybridge.training.monitoring.report import ReportFile
from muybridge.training.monitoring.sheets import Sample, SampleSheets
from muybridge.training.monitoring.updates import UpdateSizes
from muybridge.training.stages.stage import Stage, StageWork

logger = logging.getLogger(__name__)

_NOT_LOOKED_AT = {"latents", "text_states", "prior", "loss_weights"}
"""What batches have to train faster, or to keep what the model can do already; looks do without."""


def observers_of(stage: Stage, work: StageWork, data: TrainingData, run_folder: Path) -> list[Observer]:
    """None where the stage has no `evaluation.every`.

    Sizes of updates always; losses at fixed noise where clips are held out; sheets where there are prompts, and a
    pipeline to make them with; last, the report of the run, of what the others found.
    """
    asked = stage.evaluation
    if asked.every is None:
        return []
    found: list[Observer] = [UpdateSizes(asked.every, stage.schedule.warmup_steps)]
    looks = data.looks if isinstance(data, ClipSets) else None
    if looks is not None and looks.trained is not None and looks.held_out is not None:
        held_out, trained = work.seen(looks.held_out), work.seen(looks.trained)
        if missing := sorted(work.batches(0).keys() - _NOT_LOOKED_AT - trained(0).keys()):
            logger.warning(
                "no held-out loss of %s: its batches also have %s, which StageWork.seen is to add",
                stage.method,
                ", ".join(missing),
            )
        else:
            found.append(HeldOutLoss(held_out, trained, asked.every, asked.batches, asked.noises))
    if work.pipeline is not None and asked.prompts:
        samples = [Sample(prompt, asked.seed) for prompt in asked.prompts]
        found.append(SampleSheets(_maker(work.pipeline), samples, asked.every, looks and looks.trained))
    return [*found, ReportFile(run_folder, asked.every)]


def _maker(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)

    def make(prompt: str, seed: int) -> np.ndarray:
        return np.asarray(pipeline(prompt, seed=seed).frames)

    return make
