"""Looks before training: at the clips, with an estimate of time and memory, and at whether a few can be learned."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.data.settings import DataSettings
from muybridge.errors import ConfigError
from muybridge.runtime.peak import peak_memory
from muybridge.training.clip_sets import ClipSets, report_on_data
from muybridge.training.monitoring.overfitting import OverfitSettings, OverfitVerdict, overfit
from muybridge.training.prior import folder_of_prior, prior_of
from muybridge.training.run import is_finished, trainer_config
from muybridge.training.run_file import TrainingRun, load_run
from muybridge.training.stages.registry import training_data
from muybridge.training.stages.stage import Stage, StageWork
from muybridge.training.trainer import Trainer

_TIMED_STEPS = 2
"""Steps that are timed for an estimate, after one that is not."""
_OVERFIT_STEPS = 150


def look_at_data(run_file: Path, overrides: list[str], output: Path) -> str:
    """The report on the clips of a run, and what its stages will take; three steps of each are trained and thrown away.

    What builds on a stage that is not trained yet cannot be looked at, and is named. The report is written as
    `data.txt`, `data.json` and `data.png`: to the folder of the run, or for several stages to the folder of each.

    Raises:
        ConfigError: a wrong run file, a run on the toy world, of which there is nothing to report, or no stage that
            can be looked at.
        TrainingError: no clip that can be used, or too many that are damaged.
        OutputError: the report cannot be written.
    """
    run = load_run(run_file, overrides)
    if not isinstance(run.data, DataSettings):
        raise ConfigError(f"{run_file} trains on {run.data}, which is drawn as it goes; there are no clips to look at.")
    finished = {stage.method for stage in run.stages if is_finished(output, stage)}
    looks: dict[str, str] = {}
    others: dict[str, str] = {}
    for stage in run.stages:
        if missing := [need for need in stage.needs if need not in finished]:
            others[stage.method] = f"it builds on {' and '.join(missing)}, which is not trained yet"
            continue
        report = _look(run, stage, output, output if len(run.stages) == 1 else output / stage.method)
        if report is None:
            others[stage.method] = "it takes no clips"
        else:
            looks[stage.method] = report
    unseen = [f"{method} is not looked at: {reason}" for method, reason in others.items()]
    if not looks:
        raise ConfigError(f"{run_file}: {'; '.join(unseen)}.")
    if len(run.stages) == 1:
        return looks.popitem()[1]
    return "\n\n".join([*(f"stage {method}\n\n{report}" for method, report in looks.items()), *unseen])


def _look(run: TrainingRun, stage: Stage, output: Path, folder: Path) -> str | None:
    """The report on the clips of a stage, also written to `folder`, and what it will take; None if it takes none."""
    prior, told = _prior(run, stage)
    data = training_data(run.data, prior)
    stage.check(data)
    with quiet_loading():
        torch.manual_seed(stage.seed)
        work = stage.prepare(output, data)
        if not isinstance(data, ClipSets) or data.report is None:
            return None
        report = report_on_data(data.report, stage.steps * stage.batches_a_step, folder)
        try:
            return f"{report}\n\n{told}{_estimate(stage, work)}\nsamples: {folder / 'data.png'}"
        finally:
            data.close()


def _prior(run: TrainingRun, stage: Stage) -> tuple[Path | None, str]:
    """The clips of what the model can do, if they are there; else that they are not, in words."""
    if isinstance(run.data, str) or run.data.prior is None:
        return None, ""
    made = prior_of(run.data.prior, stage)
    if made is None or not made.missing:
        return folder_of_prior(run.data, stage), ""
    return None, f"{len(made.missing)} clips of what the model can do are made first, and are not in this report\n"


def _estimate(stage: Stage, work: StageWork) -> str:
    config = replace(trainer_config(stage), steps=1 + _TIMED_STEPS, trackers=(), debug=())
    folder = Path(tempfile.mkdtemp(prefix="muybridge-"))
    ends: list[float] = []
    try:
        trainer = Trainer(work.method, work.batches, replace(config, log_every=1), folder)
        trainer.fit(lambda *_: ends.append(time.perf_counter()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    lasts = seconds * stage.steps
    shown = f"{lasts / 60:.0f} minutes" if lasts >= 90 else f"{lasts:.0f} seconds"
    memory = peak_memory(next(work.method.parameters()).device) / 1e9
    return f"about {seconds:.2g} s a step here, so {shown} for {stage.steps} steps; memory so far {memory:.2g} GB"


def overfit_run(
    run_file: Path, overrides: list[str], clips: int, progress: Callable[[int, int], None] | None = None
) -> OverfitVerdict:
    """Whether the last stage of a run can learn a few clips by heart; nothing is kept.

    Raises:
        ConfigError: a wrong run file, a stage that builds on others of the run, or one that takes no noise off.
        TrainingError: no clip that can be used.
    """
    run: TrainingRun = load_run(run_file, overrides)
    stage = run.last
    if stage.needs:
        raise ConfigError(f"The stage {stage.method!r} builds on others of its run; try it on one that stands alone.")
    given = {"batch_size": clips} | ({"caption_dropout": 0.0} if "caption_dropout" in type(stage).model_fields else {})
    stage = stage.model_copy(update=given)
    data = training_data(run.data)
    stage.check(data)
    with quiet_loading(), tempfile.TemporaryDirectory(prefix="muybridge-") as folder:
        torch.manual_seed(stage.seed)
        work = stage.prepare(Path(folder), data)
        config = trainer_config(stage)
        rates = OverfitSettings(
            steps=_OVERFIT_STEPS,
            learning_rate=config.learning_rate,
            other_learning_rate=config.other_learning_rate,
            optimizer=config.optimizer,
            max_gradient_norm=config.max_gradient_norm,
        )
        return overfit(work, rates, progress)
