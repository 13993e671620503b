"""Recording what chosen modules receive and give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from torch import Tensor

from muybridge.debug.calls import ModuleCall, ModuleObserver
from muybridge.debug.modules import Target, label, select_modules
from muybridge.debug.recording import RecordedModule, RecordedTensor, Recording, kept_values
from muybridge.debug.statistics import TensorStatistics, inputs_of, outputs_of
from muybridge.errors import ConfigError


class Probe(ModuleObserver):
    """A context that records every call of the modules whose names match.

    >>> with Probe(pipe, "unet.*.motion_modules.*") as probe:
    ...     pipe("a red circle moving left", seed=1)
    >>> probe.recording.save("one")

    A layer whose weights a faster path uses directly is never called; it is in `silent`, and what is around it is
    recorded.

    Attributes:
        recording: what there is so far.
    """

    recording: Recording

    def __init__(
        self, target: Target, pattern: str | Sequence[str] = "*", full: bool = False, calls: int | None = None
    ) -> None:
        """Choose modules.

        Args:
            target: a network or a pipeline.
            pattern: names with `*` and `?`, one or several; `*` goes across dots.
            full: keep whole tensors, copied to the CPU, and not only statistics and 64 values of each.
            calls: of each module to record at most; all by default.

        Raises:
            ConfigError: a pattern that matches nothing (with the nearest names), or `calls` below 1.
        """
        if calls is not None and calls < 1:
            raise ConfigError(f"calls must be at least 1; given {calls}.")
        super().__init__(target, select_modules(target, pattern))
        self.recording = Recording(full, [])
        self._calls = calls

    def __enter__(self) -> Self:
        self.recording = Recording(self.recording.full, [])
        return super().__enter__()

    @property
    def silent(self) -> list[str]:
        """Names of chosen modules that were not called."""
        return [name for name in self._names.values() if not self._counts[name]]

    def before(self, call: ModuleCall) -> None:
        """Record the positional inputs."""
        if self._calls is None or call.number < self._calls:
            call.note = self._record(inputs_of(call.args, {}))

    def after(self, call: ModuleCall, output: object) -> None:
        """Record the rest."""
        if call.note is None:
            return
        inputs = [*call.note, *self._record(inputs_of((), call.kwargs))]
        name = label(call.name, call.module)
        made = RecordedModule(call.name, name, call.number, inputs, self._record(outputs_of(output)))
        self.recording.modules.append(made)

    def _record(self, tensors: Iterable[tuple[str, Tensor]]) -> list[RecordedTensor]:
        return [
            RecordedTensor(TensorStatistics.of(name, value), kept_values(value, self.recording.full))
            for name, value in tensors
            if not value.is_meta
        ]
