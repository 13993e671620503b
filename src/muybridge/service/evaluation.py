"""Evaluating a model of the toy world."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.demo.clip_maker import ClipMaker
from muybridge.demo.task_report import TaskReport
from muybridge.demo.tasks import ALL, TASKS, tasks_named
from muybridge.errors import ConfigError
from muybridge.files.atomic import check_folder_above, check_replaceable_file, new_file
from muybridge.pipelines import load_pipeline
from muybridge.request.request import Sampling
from muybridge.sampling.schedulers import find_sampler
from muybridge.types import SettingsDict

TaskProgress = Callable[[str, int, int], None]
"""Called with (task, clips done, clips in all)."""


@dataclass(frozen=True)
class DemoEvaluation:
    """How good a model is.

    Attributes:
        model: its name.
        task: what was asked for, one task or `all`.
        steps: of denoising.
        guidance: scale.
        scheduler: by name, where another than the model's was asked for.
        reports: of each task that was run.
        refusals: of the tasks of `all` that the model cannot do, why not.
        seconds: in all.
    """

    model: str
    task: str
    steps: int
    guidance: float
    reports: tuple[TaskReport, ...]
    refusals: dict[str, str]
    seconds: float
    scheduler: str | None = None

    def to_dict(self) -> SettingsDict:
        """Values that JSON has: one task's report beside how it was run; for `all`, a report for each in `tasks`."""
        run: SettingsDict = {"model": self.model, "steps": self.steps, "guidance": self.guidance}
        if self.scheduler is not None:
            run["scheduler"] = self.scheduler
        if self.task == ALL:
            tasks = {report.task: report.to_dict() for report in self.reports}
            return {**run, "tasks": tasks, "refusals": self.refusals, "seconds": self.seconds}
        return {**run, **self.reports[0].to_dict(), "seconds": self.seconds}


def evaluate_demo(  # what the command line asks for
    model: str,
    task: str = "text",
    count: int | None = None,
    seed: int = 0,
    sheet: Path | None = None,
    progress: TaskProgress | None = None,
    loras: Mapping[str, float] | None = None,
    sampling: Sampling | None = None,
) -> DemoEvaluation:
    """Generate clips for prompts over held-out combinations, and measure what came out.

    Args:
        model: a model of the toy world: a shipped one, or a folder.
        task: text, image, ends, keyframes, continuation; or all that the model can do, `all`.
        count: of prompts; each task has a default.
        seed: of prompts and noise. Same seed, same figures.
        sheet: a contact sheet (PNG) is written here; for `all` one for each task, its name before the suffix.
        progress: told after every few clips.
        loras: files to load into it, and the weight of each.
        sampling: steps, guidance and scheduler, where not the model's; its other settings are left out.

    Raises:
        ConfigError: no such task, or one the model cannot do; no such scheduler.
        OutputError: the contact sheet cannot be written at `sheet`.
        CheckpointError: no such model, or a LoRA that is not for it.
    """
    names = tasks_named(task)
    if count is not None and count < 1:
        raise ConfigError(f"The number of prompts must be at least 1; given {count}.")
    sheets = {} if sheet is None else {name: _sheet_path(sheet, name, task) for name in names}
    for path in sheets.values():
        check_folder_above(path)
        check_replaceable_file(path)
    sampling = sampling or Sampling()
    if sampling.scheduler is not None:
        find_sampler(sampling.scheduler)
    started = time.perf_counter()
    with quiet_loading():
        pipeline = load_pipeline(model)
        for path, weight in (loras or {}).items():
            pipeline.load_lora_weights(path, weight=weight)
    maker = ClipMaker(pipeline, sampling)
    refusals = _refusals(maker, names)
    if task != ALL and refusals:
        raise ConfigError(refusals[task])
    reports = []
    for name in (name for name in names if name not in refusals):
        report = _run(maker, name, count, seed, progress)
        reports.append(report)
        if name in sheets:
            _write_sheet(report.sheet, sheets[name])
    return DemoEvaluation(
        model,
        task,
        pipeline.config["default_steps"] if sampling.num_inference_steps is None else sampling.num_inference_steps,
        pipeline.config["default_guidance"] if sampling.guidance_scale is None else sampling.guidance_scale,
        tuple(reports),
        refusals,
        round(time.perf_counter() - started, 1),
        sampling.scheduler,
    )


def _refusals(maker: ClipMaker, names: list[str]) -> dict[str, str]:
    refusals = {}
    for name in names:
        try:
            TASKS[name].check(maker)
        except ConfigError as error:
            refusals[name] = str(error)
    return refusals


def _run(maker: ClipMaker, name: str, count: int | None, seed: int, progress: TaskProgress | None) -> TaskReport:
    def show(done: int, total: int) -> None:
        if progress is not None:
            progress(name, done, total)

    return TASKS[name].run(maker, count or TASKS[name].default_count, seed, show)


def _sheet_path(sheet: Path, name: str, task: str) -> Path:
    return sheet.with_name(f"{sheet.stem}-{name}{sheet.suffix}") if task == ALL else sheet


def _write_sheet(sheet: np.ndarray, path: Path) -> None:
    from PIL import Image

    with new_file(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
