"""Carrying out a run file: each stage trained, its average exported, the next built on it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import overload

import torch
from pydantic_core import to_jsonable_python

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.errors import ConfigError, TrainingError
from muybridge.files.atomic import new_file, output_error
from muybridge.files.folder_lock import locked_folder
from muybridge.files.json_settings import read_json_object
from muybridge.files.new_folder import replaced_folder
from muybridge.training.checkpoints import Checkpoints, has_checkpoint
from muybridge.training.clip_sets import ClipSets, content_of, report_on_data
from muybridge.training.config import CHANGEABLE_SETTINGS, changed_settings, settled_precision, with_schedule
from muybridge.training.damaged_files import DAMAGED_FILE
from muybridge.training.origin import Origin, digest_of_models
from muybridge.training.prior import folder_of_prior, prior_of
from muybridge.training.run_file import TrainingRun, load_run
from muybridge.training.sharing import check_sharding
from muybridge.training.stages.registry import training_data
from muybridge.training.stages.stage import Stage, StageWork, exported_part
from muybridge.training.stopping import stop_signals
from muybridge.training.trackers import chosen_trackers
from muybridge.training.trainer import Trainer, TrainerConfig
from muybridge.training.watching import observers_of
from muybridge.types import SettingsDict

StageProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with (stage, steps done, steps in all, smoothed metrics)."""
SETTINGS_FILE = "settings.json"
TRAINED_ON_FILE = "trained-on.txt"
"""In the folder of a stage: a digest of the clips and captions that it began with, or the name of their set."""
STEPS_FILE = "trained.json"
"""In the folder of what a stage exports: after how many steps that was."""
READING, LOOKING, PRIOR = "reading clips", "looking clips through", "making clips of what the model can do"
"""What progress is told of like a stage before one begins."""
_MANY_FILES = 200


@overload
def run_training(
    run_file: Path, overrides: list[str], output: Path, progress: StageProgress | None = None, until: None = None
) -> Path: ...


@overload
def run_training(
    run_file: Path, overrides: list[str], output: Path, progress: StageProgress | None, until: int | None
) -> Path | None: ...


def run_training(
    run_file: Path,
    overrides: list[str],
    output: Path,
    progress: StageProgress | None = None,
    until: int | None = None,
) -> Path | None:
    """Train all stages and assemble what they make; stages already finished in `output` are skipped.

    One that is finished and has more steps now goes on from its last.

    Args:
        run_file: the YAML file.
        overrides: see `load_run`.
        output: the folder of the run.
        progress: of stages in one process; those of several tell standard error how far they are.
        until: pause after this step of the first stage that has more; the same call without it goes on.

    Returns:
        The folder of the pipeline, `output/model`, or the file of the LoRA, `output/NAME.safetensors`; None if it
        paused before there is one.

    Raises:
        ConfigError: a wrong run file, or other settings than those a stage in `output` has begun with.
        OutputError: `output` cannot be written, or another program trains there.
        TrainingError: a stage failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call continues.
    """
    run = load_run(run_file, overrides)
    run = run.model_copy(update={"stages": [_with_precision(stage, output / stage.method) for stage in run.stages]})
    try:
        check_run(run)
    except ConfigError as error:
        raise ConfigError(f"{run_file}: {error}") from error
    for stage in run.stages:
        _check_settings(stage, output)
    _check_more_steps(run, output)
    trained_on = content_of(run.data, _told_of_files(progress, READING))
    _check_finished(run, output, trained_on)
    _make_folder(output)
    with quiet_loading(), locked_folder(output, "trains"):
        for stage in run.stages:
            if is_finished(output, stage):
                continue
            _record_settings(stage, output, trained_on)
            _make_prior(run, stage, progress)
            if stage.processes == 1:
                train_stage(run, stage, output, progress, until)
            else:
                _launch(stage, run_file, overrides, output, until)
            if until is not None and until < stage.steps:
                return None
        return run.last.publish(run, output)


def check_run(run: TrainingRun) -> None:
    """Find what is wrong with clips, models and settings together, before anything is trained or written.

    Raises:
        ConfigError: clips or prompts that are not there, or settings that these, the networks or this machine refuse.
        CheckpointError: a model that is not there.
    """
    data = training_data(run.data)
    for stage in run.stages:
        stage.check(data)
        folder_of_prior(run.data, stage)
        _check_trainer(trainer_config(stage))


def has_begun(output: Path) -> bool:
    """Whether any stage in the folder of a run has something to go on from."""
    folders = [each for each in output.iterdir() if each.is_dir()] if output.is_dir() else []
    return any(has_checkpoint(each) or exported_part(output, each.name).is_dir() for each in folders)


def paused_at(run: TrainingRun, output: Path) -> tuple[str, int] | None:
    """The first stage that is not finished, and how many steps of it are done; None if all are."""
    for stage in run.stages:
        if not is_finished(output, stage):
            return stage.method, max(Checkpoints(output / stage.method).steps(), default=0)
    return None


def is_finished(output: Path, stage: Stage) -> bool:
    """Whether the stage's weights have been exported, after no fewer steps than it has now."""
    if not _is_exported(output, stage):
        return False
    return stage.steps <= _exported_steps(output, stage)


def _is_exported(output: Path, stage: Stage) -> bool:
    return all(exported_part(output, stage.method, part).is_dir() for part in stage.parts)


def _exported_steps(output: Path, stage: Stage) -> int:
    """After how many steps the weights were exported."""
    path = exported_part(output, stage.method) / STEPS_FILE
    if path.is_file():
        advice = "Choose another output folder, or delete the folder that it is in to export anew."
        steps = read_json_object(path, "the record of an export", ConfigError, advice).get("steps")
        if not isinstance(steps, int):
            raise ConfigError(f"{path} does not say how many steps were trained. {advice}")
        return steps
    # Nothing could go on past its end when exports did not say.
    return (_recorded_settings(output / stage.method) or {}).get("steps", stage.steps)


def train_stage(
    run: TrainingRun, stage: Stage, output: Path, progress: StageProgress | None = None, until: int | None = None
) -> None:
    """Train one stage of a run in this process (or in this process' share of several) and export its average.

    With `until` it is trained to that step at most, and nothing is exported before the last one.
    """
    stage = _with_precision(stage, output / stage.method)
    torch.manual_seed(stage.seed)
    data = training_data(run.data, folder_of_prior(run.data, stage))
    if isinstance(data, ClipSets):
        data.on_file = _told_of_files(progress, LOOKING)
        data.found_damaged.folder = output / stage.method
    work = stage.prepare(output, data)
    digest = data.digest() if isinstance(data, ClipSets) else work.data_digest
    origin = Origin(digest_of_models(stage.built_on(output)), digest)
    trainer = Trainer(work.method, work.batches, trainer_config(stage), output / stage.method, origin)

    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        if progress is not None and trainer.is_main:
            progress(stage.method, step, steps, metrics)

    if trainer.is_main and isinstance(data, ClipSets) and data.report is not None:
        report_on_data(data.report, stage.steps * stage.batches_a_step, output / stage.method)
    try:
        trainer.fit(report, observers_of(stage, work, data, output), until)
    finally:
        if isinstance(data, ClipSets):
            data.close()
    if trainer.step < stage.steps:
        return
    with trainer.evaluated():
        if trainer.is_main:
            _export(work, exported_part(output, stage.method), trainer.step)


def trainer_config(stage: Stage) -> TrainerConfig:
    """What the trainer is told of a stage."""
    return TrainerConfig(**{name: getattr(stage, name) for name in TrainerConfig.__dataclass_fields__})


def _told_of_files(progress: StageProgress | None, doing: str) -> Callable[[int, int], None] | None:
    """Tells how many files are done, where there are so many that somebody may wonder."""
    if progress is None:
        return None

    def tell(done: int, count: int) -> None:
        if count > _MANY_FILES and (done % _MANY_FILES == 0 or done == count):
            progress(doing, done, count, {})

    return tell


def _check_trainer(config: TrainerConfig) -> None:
    """What the trainer would refuse, before stages ahead are trained for nothing."""
    config.check()
    check_sharding(config)
    chosen_trackers(config.trackers)


def _export(work: StageWork, folder: Path, steps: int) -> None:
    with replaced_folder(folder) as temporary:
        _write_steps(temporary / STEPS_FILE, steps)
        for name, part in work.trained_parts().items():
            part.save_pretrained(temporary / name)


def _write_steps(path: Path, steps: int) -> None:
    with new_file(path) as temporary:
        temporary.write_text(json.dumps({"steps": steps}) + "\n", encoding="utf-8")


def _make_prior(run: TrainingRun, stage: Stage, progress: StageProgress | None) -> None:
    """Clips of what the model can do, where they are asked for and not there."""
    if isinstance(run.data, str) or run.data.prior is None:
        return
    prior = prior_of(run.data.prior, stage)
    if prior is not None:
        prior.make(None if progress is None else lambda done, count: progress(PRIOR, done, count, {}))


def _launch(stage: Stage, run_file: Path, overrides: list[str], output: Path, until: int | None) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={stage.processes}"]
    limit = "" if until is None else str(until)
    command += ["-m", "muybridge.training.stages.process", str(run_file), stage.method, str(output), limit, *overrides]
    with stop_signals() as stop:
        # In a group of its own, so that Ctrl-C reaches the processes once and through here only.
        launcher = subprocess.Popen(command, process_group=0)
        told = False
        while launcher.poll() is None:
            if stop.requested and not told:
                launcher.terminate()
                told = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                launcher.wait(timeout=0.5)
    if stop.requested:
        raise KeyboardInterrupt
    if launcher.returncode:
        raise TrainingError(
            f"Stage {stage.method!r} stopped with status {launcher.returncode}; the reason stands above. "
            "Unless the settings are wrong, the same command continues it."
        )


def _check_settings(stage: Stage, output: Path) -> None:
    folder = output / stage.method
    before = _recorded_settings(folder)
    finished = is_finished(output, stage)
    if before is None or not (finished or has_checkpoint(folder)):
        return
    # What there was no setting for was as it is by default.
    before = {**_default_settings(stage), **with_schedule(before)}
    free = CHANGEABLE_SETTINGS
    if finished:  # it may have been about to go on, and is wanted as it was
        before["steps"] = _exported_steps(output, stage)
        free = CHANGEABLE_SETTINGS - {"steps"}
    if changed := changed_settings(before, stage.model_dump(mode="json"), free):
        state = "is finished" if finished else "has begun"
        raise ConfigError(
            f"Stage {stage.method!r} in {folder.parent} {state} with other settings ({', '.join(changed)}). Choose "
            "another output folder to start anew, or the old settings to continue."
        )


def _check_more_steps(run: TrainingRun, output: Path) -> None:
    """A stage goes on past its end from its last step, and where nothing has been made of what came out."""
    for stage in run.stages:
        if is_finished(output, stage) or not _is_exported(output, stage):
            continue
        what = f"Stage {stage.method!r} in {output} is finished, and cannot be given more steps"
        if not has_checkpoint(output / stage.method):
            raise ConfigError(f"{what}: its checkpoints are gone. Choose another output folder.")
        later = [each for each in run.stages if stage.method in each.needs]
        if begun := [e.method for e in later if _is_exported(output, e) or has_checkpoint(output / e.method)]:
            raise ConfigError(
                f"{what}: {begun[0]!r} has begun with what came out of it. Choose another output folder, or delete "
                f"{output / begun[0]}."
            )


def _check_finished(run: TrainingRun, output: Path, trained_on: str) -> None:
    """Stages that are finished are not trained again, so they must have been on what the run file names now."""
    for stage in run.stages:
        path = output / stage.method / TRAINED_ON_FILE
        if not is_finished(output, stage) or not path.is_file():
            continue
        if path.read_text(encoding="utf-8", errors="replace").strip() != trained_on:
            raise ConfigError(
                f"Stage {stage.method!r} in {output} is finished, and was trained on other clips, captions or "
                "settings than those of data now. Choose another output folder to train on these, or put back what "
                "there was."
            )


def _recorded_settings(folder: Path) -> SettingsDict | None:
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return None
    return read_json_object(path, "the settings of a stage", ConfigError, "Choose another output folder.")


def _with_precision(stage: Stage, folder: Path) -> Stage:
    """The stage with the precision that it is trained in, as its record says it."""
    began_with = (_recorded_settings(folder) or {}).get("mixed_precision")
    return stage.model_copy(update={"mixed_precision": settled_precision(stage.mixed_precision, began_with)})


def _default_settings(stage: Stage) -> SettingsDict:
    fields = {name: field for name, field in type(stage).model_fields.items() if not field.is_required()}
    return {n: to_jsonable_python(field.get_default(call_default_factory=True)) for n, field in fields.items()}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _record_settings(stage: Stage, output: Path, trained_on: str) -> None:
    folder = output / stage.method
    _make_folder(folder)
    exported = exported_part(output, stage.method) / STEPS_FILE
    if _is_exported(output, stage) and not exported.is_file():  # as earlier versions left it
        _write_steps(exported, _exported_steps(output, stage))
    if not has_checkpoint(folder):  # one that goes on says itself what it began with
        with new_file(folder / TRAINED_ON_FILE) as temporary:
            temporary.write_text(f"{trained_on}\n", encoding="utf-8")
        (folder / DAMAGED_FILE).unlink(missing_ok=True)  # what was found in another beginning
    with new_file(folder / SETTINGS_FILE) as temporary:
        temporary.write_text(stage.model_dump_json(indent=2) + "\n")
