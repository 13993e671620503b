"""Memory while a model runs: the most each module needed, and how it rose and fell."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil
import torch

from muybridge.debug.calls import ModuleCall, ModuleObserver
from muybridge.debug.drawing import lines, save_picture
from muybridge.debug.modules import Target, label, roots_of
from muybridge.debug.tables import mebibytes, text_table
from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import ConfigError
from muybridge.files.atomic import new_file

Measure = Literal["tensors", "device"]
_MAX_HISTORY = 200_000


@dataclass(frozen=True)
class ModulePeak:
    """The most memory while a module ran, over its calls.

    Attributes:
        module: its full name.
        label: name and class.
        calls: of it.
        peak_bytes: everything that was there at its worst moment.
        added_bytes: by how much that was more than when it began, in the call where this was most.
    """

    module: str
    label: str
    calls: int
    peak_bytes: int
    added_bytes: int


@dataclass(frozen=True)
class MemorySample:
    """One moment, at the beginning or the end of a module.

    Attributes:
        seconds: since the context was entered.
        module: its full name.
        event: "start" or "end".
        values: bytes by what they are: `tensors`, `resident` of the process, `allocated` and `reserved` of the GPU.
    """

    seconds: float
    module: str
    event: str
    values: dict[str, int]


@dataclass(frozen=True)
class MemoryReport:
    """Peaks and timeline.

    Attributes:
        measure: what the peaks count.
        peak_bytes: of the whole run.
        modules: those that ran, outermost first.
        timeline: in order.
        snapshot: the allocator's history for https://pytorch.org/memory_viz, where a GPU was used.
    """

    measure: str
    peak_bytes: int
    modules: list[ModulePeak]
    timeline: list[MemorySample]
    snapshot: Path | None

    def largest(self, count: int = 10) -> list[ModulePeak]:
        """The modules that added most."""
        return sorted(self.modules, key=lambda module: -module.added_bytes)[:count]

    def __str__(self) -> str:
        rows = [[m.label, str(m.calls), mebibytes(m.peak_bytes), mebibytes(m.added_bytes)] for m in self.largest()]
        header = ["module", "calls", "peak MiB", "added MiB"]
        return f"{text_table(header, rows)}\npeak of the run: {mebibytes(self.peak_bytes)} MiB of {self.measure}"

    def save(self, folder: str | Path) -> list[Path]:
        """Write `memory.json` and the timeline as `memory.png`.

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "memory.json"
        with new_file(path) as temporary:
            values = asdict(self) | {"snapshot": None if self.snapshot is None else str(self.snapshot)}
            temporary.write_text(json.dumps(values) + "\n")
        names = self.timeline[0].values if self.timeline else {}
        curves = {name: [(each.seconds, each.values[name] / 2**20) for each in self.timeline] for name in names}
        return [path, save_picture(lines(curves, "memory", "MiB"), folder / "memory.png")]


class MemoryWatch(ModuleObserver):
    """Measures memory around every module.

    `measure="tensors"` counts the bytes of tensors made inside the context and still alive, on any device, and gives
    the same numbers each time; each operation passes through Python. `measure="device"` asks the CUDA allocator, or on
    a CPU the resident size of the process, which never shrinks when the allocator keeps what was freed.
    """

    def __init__(self, target: Target, measure: Measure = "tensors", snapshot: str | Path | None = None) -> None:
        """Watch a network or a pipeline.

        Args:
            target: what to watch.
            measure: what the peaks count; the timeline has both.
            snapshot: where to write the history of the CUDA allocator, a file that PyTorch's viewer opens.

        Raises:
            ConfigError: another measure, or a snapshot of a model that does not run on a CUDA device.
        """
        super().__init__(target)
        if measure not in ("tensors", "device"):
            raise ConfigError(f"measure must be 'tensors' or 'device'; given {measure!r}.")
        device = execution_device(target)
        self._cuda = device if device.type == "cuda" else None
        if snapshot is not None and self._cuda is None:
            raise ConfigError("Only CUDA's allocator has a history to take a snapshot of; leave snapshot out.")
        self.measure = measure
        self._snapshot = None if snapshot is None else Path(snapshot)
        self._tensors = TensorMemory()
        self._process = psutil.Process()
        self._peaks: dict[str, ModulePeak] = {}
        self._timeline: list[MemorySample] = []
        self._started = 0.0
        self._peak = 0
        self._meter: _Meter = self._make_meter()

    def __enter__(self) -> Self:
        self._peaks, self._timeline = {}, []
        self._started = time.perf_counter()
        if self._snapshot is not None:
            torch.cuda.memory._record_memory_history(max_entries=_MAX_HISTORY)
        if self.measure == "tensors":
            self._tensors = TensorMemory()
            self._tensors.__enter__()
        self._meter = self._make_meter()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
            if self.measure == "tensors":
                self._tensors.__exit__(kind, error, trace)
            self._peak = self._meter.peak_since(0)
            if self._snapshot is not None:
                # A pickle, as the viewer wants it; it holds sizes and stack traces, and is never read back here.
                self._snapshot.parent.mkdir(parents=True, exist_ok=True)
                with new_file(self._snapshot) as path:
                    torch.cuda.memory._dump_snapshot(str(path))
        finally:
            if self._snapshot is not None:
                torch.cuda.memory._record_memory_history(enabled=None)

    def before(self, call: ModuleCall) -> None:
        """Begin a peak of its own."""
        call.note = (self._meter.now(), self._meter.begin())
        self._sample(call, "start")

    def after(self, call: ModuleCall, output: object) -> None:
        """End it, and let what is around it know."""
        started, outer = call.note
        self._sample(call, "end")
        peak = self._meter.end(outer)
        before = self._peaks.get(call.name)
        self._peaks[call.name] = ModulePeak(
            module=call.name,
            label=label(call.name, call.module),
            calls=1 + (before.calls if before else 0),
            peak_bytes=max(peak, before.peak_bytes if before else 0),
            added_bytes=max(peak - started, before.added_bytes if before else 0),
        )

    def report(self) -> MemoryReport:
        """What was measured, after the context has ended.

        Raises:
            ConfigError: inside the context.
        """
        if self.active:
            raise ConfigError("The peak is known when the context has ended; ask for the report then.")
        order = [self._peaks[name] for name in self._names.values() if name in self._peaks]
        what = self.measure if self.measure == "tensors" else ("allocated" if self._cuda else "resident")
        return MemoryReport(what, self._peak, order, list(self._timeline), self._snapshot)

    def _make_meter(self) -> _Meter:
        if self.measure == "tensors":
            return _TensorMeter(self._tensors)
        return _CudaMeter(self._cuda) if self._cuda is not None else _HighestSeen(self._resident)

    def _resident(self) -> int:
        return self._process.memory_info().rss

    def _sample(self, call: ModuleCall, event: str) -> None:
        values = {"tensors": self._tensors.live_bytes} if self.measure == "tensors" else {}
        if self._cuda is not None:
            values["allocated"] = torch.cuda.memory_allocated(self._cuda)
            values["reserved"] = torch.cuda.memory_reserved(self._cuda)
        else:
            values["resident"] = self._resident()
        self._timeline.append(MemorySample(time.perf_counter() - self._started, call.name, event, values))


def execution_device(target: Target) -> torch.device:
    """Where a model computes: what a pipeline says, which offloaded weights do not tell; else where its weights are.

    Of several networks the first one on a CUDA device counts; without weights it is the CPU.
    """
    told = getattr(target, "_execution_device", None)
    if told is not None:
        return torch.device(told)
    weights = [next(root.parameters(), None) for root in roots_of(target).values()]
    devices = [weight.device for weight in weights if weight is not None] or [torch.device("cpu")]
    return next((device for device in devices if device.type == "cuda"), devices[0])


class _Meter:
    """A peak within a peak: `begin` sets the outer one aside, `end` gives the inner one and takes the larger on."""

    def now(self) -> int:
        raise NotImplementedError

    def begin(self) -> int:
        raise NotImplementedError

    def end(self, outer: int) -> int:
        raise NotImplementedError

    def peak_since(self, outer: int) -> int:
        raise NotImplementedError


class _TensorMeter(_Meter):
    def __init__(self, tensors: TensorMemory) -> None:
        self._tensors = tensors

    def now(self) -> int:
        return self._tensors.live_bytes

    def begin(self) -> int:
        outer, self._tensors.peak_bytes = self._tensors.peak_bytes, self._tensors.live_bytes
        return outer

    def end(self, outer: int) -> int:
        peak = self._tensors.peak_bytes
        self._tensors.peak_bytes = max(outer, peak)
        return peak

    def peak_since(self, outer: int) -> int:
        return max(outer, self._tensors.peak_bytes)


class _CudaMeter(_Meter):
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._outer = 0
        torch.cuda.reset_peak_memory_stats(device)

    def now(self) -> int:
        return torch.cuda.memory_allocated(self._device)

    def begin(self) -> int:
        outer = self.peak_since(0)
        self._outer = 0
        torch.cuda.reset_peak_memory_stats(self._device)
        return outer

    def end(self, outer: int) -> int:
        peak = self.peak_since(0)
        self._outer = max(outer, peak)
        return peak

    def peak_since(self, outer: int) -> int:
        return max(outer, self._outer, torch.cuda.max_memory_allocated(self._device))


class _HighestSeen(_Meter):
    """For what tells only its present value: the highest of the moments looked at."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._highest = read()

    def now(self) -> int:
        return self._read()

    def begin(self) -> int:
        outer = self.peak_since(0)
        self._highest = self._read()
        return outer

    def end(self, outer: int) -> int:
        peak = self.peak_since(0)
        self._highest = max(outer, peak)
        return peak

    def peak_since(self, outer: int) -> int:
        self._highest = max(self._highest, self._read())
        return max(outer, self._highest)
