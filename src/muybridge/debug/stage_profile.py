"""Where the time goes: a trace of each stage of a pipeline, and the modules that take most."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from muybridge.debug.calls import ModuleCall, ModuleObserver
from muybridge.debug.memory_watch import execution_device
from muybridge.debug.modules import Target, label, roots_of
from muybridge.debug.tables import text_table
from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file

_TEXT = ("text_encoder", "text_encoder_2", "image_encoder")
_ENCODING = ("encoder", "quant_conv")


@dataclass(frozen=True)
class ModuleTime:
    """What a module cost.

    Attributes:
        module: its full name.
        label: name and class.
        stage: "text", "encode", "denoise" or "decode"; "forward" for a network alone.
        calls: of it.
        self_seconds: in it and in none of its parts; on a GPU the time of its work there.
        total_seconds: with its parts.
    """

    module: str
    label: str
    stage: str
    calls: int
    self_seconds: float
    total_seconds: float


@dataclass(frozen=True)
class ProfileReport:
    """Times and traces.

    Attributes:
        stage_seconds: from the first module of a stage to the first of the next, with what is between modules.
        modules: the most expensive by their own time first.
        traces: of each stage, where they were asked for; `chrome://tracing` and https://ui.perfetto.dev open them.
    """

    stage_seconds: dict[str, float]
    modules: list[ModuleTime]
    traces: dict[str, list[Path]]

    def top(self, count: int = 10) -> list[ModuleTime]:
        """The most expensive modules by the time in themselves."""
        return self.modules[:count]

    def __str__(self) -> str:
        total = sum(module.self_seconds for module in self.modules) or 1.0
        rows = []
        for each in self.top():
            times = [_milli(each.self_seconds), _milli(each.total_seconds), f"{100 * each.self_seconds / total:.1f}"]
            rows.append([each.label, each.stage, str(each.calls), *times])
        stages = ", ".join(f"{stage} {_milli(seconds)} ms" for stage, seconds in self.stage_seconds.items())
        return text_table(["module", "stage", "calls", "self ms", "total ms", "%"], rows) + f"\nstages: {stages}"

    def save(self, folder: str | Path) -> list[Path]:
        """Write all times as `profile.json`.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = Path(folder) / "profile.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        traces = {stage: [str(each) for each in paths] for stage, paths in self.traces.items()}
        values = asdict(self) | {"traces": traces}
        with new_file(path) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n")
        return [path]


_Moment = float | torch.cuda.Event
"""On a CPU seconds, on a GPU what is put between the work there."""


@dataclass
class _Running:
    """A call that is being timed."""

    stage: str
    range: record_function
    start: _Moment
    parts: list[tuple[_Moment, _Moment]] = field(default_factory=list)


class StageProfile(ModuleObserver):
    """A context that times every module, and traces every stage with torch's profiler where a folder is given.

    Tracing slows a run on a CPU noticeably, so read shares from a traced run, and seconds from one without.
    """

    def __init__(
        self, target: Target, folder: str | Path | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Watch a network or a pipeline; traces go to `folder` as `trace-STAGE.json`, numbered where it comes again.

        `clock` gives the seconds of the stages, and of the modules where they run on a CPU.
        """
        super().__init__(target)
        self._clock = clock
        self._folder = None if folder is None else Path(folder)
        roots = roots_of(target)
        self._alone = len(roots) == 1 and "" in roots
        self._cuda = execution_device(target).type == "cuda"
        self._stage = ""
        self._stage_started = 0.0
        self._stages: dict[str, float] = {}
        self._profiler: profile | None = None
        self._traces: dict[str, list[Path]] = {}
        self._running: list[_Running] = []
        self._times: list[tuple[str, nn.Module, _Running, _Moment]] = []

    def __enter__(self) -> Self:
        self._stage, self._stages, self._traces = "", {}, {}
        self._running, self._times = [], []
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._close(0)
        self._end_stage()

    def before(self, call: ModuleCall) -> None:
        """Start the clock."""
        # What is above it on the stack but not around it ended in an exception that somebody caught.
        self._close(len(self._stack) - 1)
        stage = "forward" if self._alone else _stage_of(call.name)
        if stage != self._stage and not self._running:
            self._end_stage()
            self._begin_stage(stage)
        inside = record_function(label(call.name, call.module))
        inside.__enter__()
        call.note = _Running(self._stage, inside, self._now())
        self._running.append(call.note)

    def after(self, call: ModuleCall, output: object) -> None:
        """Stop it."""
        ended = self._now()
        self._close(len(self._stack))
        self._times.append((call.name, call.module, call.note, ended))
        if self._running:
            self._running[-1].parts.append((call.note.start, ended))

    def report(self) -> ProfileReport:
        """What was measured, after the context has ended.

        Raises:
            ConfigError: inside the context, or nothing ran in it.
        """
        if self.active:
            raise ConfigError("Times are complete when the context has ended; ask for the report then.")
        if not self._times:
            raise ConfigError("No module ran inside the context; call the pipeline or the network in it.")
        if self._cuda:
            torch.cuda.synchronize()
        sums: dict[tuple[str, str], ModuleTime] = {}
        for name, module, call, ended in self._times:
            total = _seconds(call.start, ended)
            own = total - sum(_seconds(*part) for part in call.parts)
            key = (name, call.stage)
            last = sums.get(key) or ModuleTime(name, label(name, module), call.stage, 0, 0.0, 0.0)
            own, total = last.self_seconds + own, last.total_seconds + total
            sums[key] = replace(last, calls=last.calls + 1, self_seconds=own, total_seconds=total)
        ordered = sorted(sums.values(), key=lambda module: -module.self_seconds)
        return ProfileReport(dict(self._stages), ordered, dict(self._traces))

    def _now(self) -> _Moment:
        if not self._cuda:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _close(self, depth: int) -> None:
        while len(self._running) > depth:
            self._running.pop().range.__exit__(None, None, None)

    def _begin_stage(self, stage: str) -> None:
        self._stage, self._stage_started = stage, self._clock()
        if self._folder is not None:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
            self._profiler = profile(activities=activities)
            self._profiler.__enter__()

    def _end_stage(self) -> None:
        if not self._stage:
            return
        if self._cuda:
            torch.cuda.synchronize()
        seconds = self._clock() - self._stage_started
        self._stages[self._stage] = self._stages.get(self._stage, 0.0) + seconds
        profiler, self._profiler = self._profiler, None
        if profiler is not None and self._folder is not None:
            profiler.__exit__(None, None, None)
            paths = self._traces.setdefault(self._stage, [])
            path = self._folder / f"trace-{self._stage}{'' if not paths else f'-{len(paths) + 1}'}.json"
            self._folder.mkdir(parents=True, exist_ok=True)
            with new_file(path) as temporary:
                profiler.export_chrome_trace(str(temporary))
            paths.append(path)
        self._stage = ""


def _stage_of(name: str) -> str:
    part, _, rest = name.partition(".")
    if part in _TEXT:
        return "text"
    if part == "vae":
        return "encode" if rest.partition(".")[0] in _ENCODING else "decode"
    return "denoise"


def _seconds(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


def _milli(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"
