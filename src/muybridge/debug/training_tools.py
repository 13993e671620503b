"""Tools by name around a loop that trains, each leaving its report in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from torch import nn

from muybridge.debug.anomaly_guard import AnomalyGuard
from muybridge.debug.attention_maps import AttentionMaps
from muybridge.debug.gradients import GradientWatch
from muybridge.debug.memory_watch import MemoryWatch
from muybridge.debug.probe import Probe
from muybridge.debug.stage_profile import StageProfile
from muybridge.errors import ConfigError, MuybridgeError
from muybridge.files.atomic import new_file

ToolName = Literal["anomaly", "attention", "gradients", "memory", "probe", "profile"]
TOOL_NAMES: tuple[str, ...] = get_args(ToolName)
_Tool = AttentionMaps | GradientWatch | MemoryWatch | Probe | StageProfile


class TrainingTools:
    """A context around a training loop, which calls `begin_step` before each step.

    The anomaly guard stays for the whole run. The others look at the first `steps` steps after the context is entered,
    and then write what they saw, so that neither memory nor time grows with the run. Where an error ends the run
    before, they write what there is; what cannot be written then is a note on that error. Attention is looked at in
    clips as long as the first.
    """

    def __init__(self, names: Sequence[str], method: nn.Module, folder: Path, steps: int = 10) -> None:
        """Make the tools; no name makes none, which costs nothing.

        Raises:
            ConfigError: an unknown name, fewer than one step, or a tool that has nothing to look at in `method`.
        """
        if unknown := [name for name in names if name not in TOOL_NAMES]:
            raise ConfigError(f"There is no debugging tool {unknown[0]!r}. There are: {', '.join(TOOL_NAMES)}.")
        if steps < 1:
            raise ConfigError(f"Debugging tools must look at one step at least; given {steps}.")
        self._folder = folder
        self._steps = steps
        self._done = 0
        self._guard = AnomalyGuard(method, folder=folder) if "anomaly" in names else None
        makers: dict[str, Callable[[nn.Module], _Tool]] = {
            "attention": lambda target: AttentionMaps(target, skip_other_lengths=True),
            "gradients": GradientWatch,
            "memory": MemoryWatch,
            "probe": lambda target: Probe(target, calls=steps),
            "profile": lambda target: StageProfile(target, folder),
        }
        self._tools: dict[str, _Tool] = {name: makers[name](method) for name in makers if name in names}
        self._looking = ExitStack()
        self._all = ExitStack()

    def __enter__(self) -> TrainingTools:
        with ExitStack() as entered:
            if self._guard is not None:
                entered.enter_context(self._guard)
            looking = entered.enter_context(ExitStack())
            self._done = 0
            # Reports are written after all have stopped looking, in order; the last one pushed is the first to go.
            for name in reversed(self._tools):
                looking.push(partial(self._report, name))
            for tool in self._tools.values():
                looking.enter_context(tool)
            self._looking, self._all = looking, entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.__exit__(kind, error, trace)

    def begin_step(self, step: int) -> None:
        """Step number `step` of the run begins; finishes the tools that have seen enough."""
        if self._guard is not None:
            self._guard.step = f"training step {step}"
        if self._done == self._steps:
            self._looking.close()
        self._done += 1

    def _report(
        self, name: str, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._done:
            return
        try:
            self._save(name, self._tools[name])
        except (MuybridgeError, OSError) as failure:
            if error is None:
                raise
            error.add_note(f"The debugging tool {name!r} left no report: {failure}")

    def _save(self, name: str, tool: _Tool) -> None:
        if isinstance(tool, AttentionMaps):
            tool.save(self._folder / "attention")
            return
        if isinstance(tool, Probe):
            tool.recording.save(self._folder / "probe")
            return
        report = tool.report()
        report.save(self._folder)
        with new_file(self._folder / f"{name}.txt") as path:
            path.write_text(f"{report}\n")
