"""What modules received and gave in one run, as a value: saved, loaded, and compared with another run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from muybridge.debug.statistics import TensorStatistics
from muybridge.errors import ConfigError, InputFileError
from muybridge.files.atomic import new_file
from muybridge.types import SettingsDict, SettingsView

FORMAT = "muybridge-recording-1"


@dataclass(frozen=True)
class RecordedTensor:
    """One input or output.

    Attributes:
        statistics: its name (`input.0`, `output`), shape and numbers.
        values: all of it in its own dtype, or some of its values as float64 `[n]`, evenly spread; on the CPU.
    """

    statistics: TensorStatistics
    values: Tensor


@dataclass(frozen=True)
class RecordedModule:
    """One call of one module.

    Attributes:
        module: its full name.
        label: name and class.
        call: its number, from 0.
        inputs: before the module ran (keyword arguments: after).
        outputs: after it ran.
    """

    module: str
    label: str
    call: int
    inputs: list[RecordedTensor]
    outputs: list[RecordedTensor]


@dataclass(frozen=True)
class Divergence:
    """The first place where two runs differ, in the order in which modules ended.

    Attributes:
        module: its full name.
        label: name and class.
        call: its number, from 0.
        tensor: `input.0`, `output`.
        arose: "inside" the module, if its inputs agree; "before" it, in what no recorded module did, if not.
        absolute: the largest difference of two values.
        relative: norm of the difference as a share of the norm of the first; where the recordings have statistics only,
            the largest share by which one of them differs, of itself or of the root mean square if that is larger, as
            it is for the mean.
        problem: for tensors that cannot be compared, why.
    """

    module: str
    label: str
    call: int
    tensor: str
    arose: str
    absolute: float
    relative: float
    problem: str | None = None

    def __str__(self) -> str:
        what = self.problem or f"largest difference {self.absolute:.4g}, relative {self.relative:.4g}"
        return f"first difference {self.arose} {self.label}, call {self.call}, {self.tensor}: {what}"


@dataclass(frozen=True)
class Recording:
    """A run.

    Attributes:
        full: whether whole tensors were kept.
        modules: calls in the order in which they ended, so that parts come before what they are part of.
    """

    full: bool
    modules: list[RecordedModule]

    def save(self, path: str | Path) -> Path:
        """Write `path` with the suffixes `.json` and `.safetensors`, for another machine; returns the former.

        Raises:
            OutputError: it cannot be written.
        """
        path = _without_suffix(path)
        tensors: dict[str, Tensor] = {}
        calls: list[SettingsDict] = []
        for index, module in enumerate(self.modules):
            for side in ("inputs", "outputs"):
                recorded: list[RecordedTensor] = getattr(module, side)
                tensors |= {f"{index}/{side}/{place}": each.values for place, each in enumerate(recorded)}
            shown: SettingsDict = {"module": module.module, "label": module.label, "call": module.call}
            shown["inputs"] = [each.statistics.to_dict() for each in module.inputs]
            shown["outputs"] = [each.statistics.to_dict() for each in module.outputs]
            calls.append(shown)
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path.with_name(path.name + ".safetensors")) as temporary:
            save_file(tensors, temporary)
        target = path.with_name(path.name + ".json")
        with new_file(target) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, "full": self.full, "modules": calls}) + "\n")
        return target

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read what `save` wrote.

        Raises:
            InputFileError: missing or damaged, or not a recording.
        """
        path = _without_suffix(path)
        source = path.with_name(path.name + ".json")
        try:
            content = json.loads(source.read_text())
            tensors = load_file(path.with_name(path.name + ".safetensors"))
            if content["format"] != FORMAT:
                raise InputFileError(f"{source} is a {content['format']}, not a {FORMAT}.")
            return cls(
                bool(content["full"]), [_read_call(i, call, tensors) for i, call in enumerate(content["modules"])]
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise InputFileError(
                f"{source} and its .safetensors are no recording of a run, or damaged. Record it again."
            ) from error

    def first_divergence(self, other: Recording, tolerance: float = 0.0) -> Divergence | None:
        """Where another run first differs from this one by more than `tolerance` (relative), or None.

        Raises:
            ConfigError: the two have no call of a module in common.
        """
        theirs = {(module.module, module.call): module for module in other.modules}
        common = [module for module in self.modules if (module.module, module.call) in theirs]
        if not common:
            names = sorted({module.module for module in other.modules})[:4]
            raise ConfigError(f"The recordings have no module in common; the other has {', '.join(names) or 'none'}.")
        for one in common:
            found = _compare_calls(one, theirs[one.module, one.call], self.full and other.full, tolerance)
            if found is not None:
                return found
        return None


def kept_values(tensor: Tensor, full: bool, count: int = 64) -> Tensor:
    """What a recording keeps of a tensor, in memory of its own: all, or `count` values evenly spread, as float64."""
    tensor = tensor.detach()
    if full:
        return tensor.to("cpu", copy=True).contiguous()
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).flatten()
    kept = min(count, flat.numel())
    # In integers: float32 cannot tell neighbours apart above 2 ** 24, and would round the last place to the one after.
    places = torch.arange(kept, device=flat.device) * max(0, flat.numel() - 1) // max(1, kept - 1)
    return flat[places].double().cpu()


def _without_suffix(path: str | Path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".json", ".safetensors") else path


def _read_call(index: int, call: SettingsView, tensors: Mapping[str, Tensor]) -> RecordedModule:
    def side(name: str) -> list[RecordedTensor]:
        return [
            RecordedTensor(TensorStatistics.from_dict(values), tensors[f"{index}/{name}/{place}"])
            for place, values in enumerate(call[name])
        ]

    return RecordedModule(call["module"], call["label"], call["call"], side("inputs"), side("outputs"))


def _compare_calls(one: RecordedModule, other: RecordedModule, full: bool, tolerance: float) -> Divergence | None:
    for place, mine, theirs in (("before", one.inputs, other.inputs), ("inside", one.outputs, other.outputs)):
        if len(mine) != len(theirs):
            problem = f"{len(mine)} tensors here, {len(theirs)} there"
            name = "inputs" if place == "before" else "outputs"
            return Divergence(one.module, one.label, one.call, name, place, 0.0, 0.0, problem)
        for left, right in zip(mine, theirs, strict=True):
            name = left.statistics.name
            if left.statistics.shape != right.statistics.shape:
                problem = f"{list(left.statistics.shape)} here, {list(right.statistics.shape)} there"
                return Divergence(one.module, one.label, one.call, name, place, 0.0, 0.0, problem)
            absolute, relative = _whole_error(left, right) if full else _statistics_error(left, right)
            if relative > tolerance:
                return Divergence(one.module, one.label, one.call, name, place, absolute, relative)
    return None


def _whole_error(one: RecordedTensor, other: RecordedTensor) -> tuple[float, float]:
    left, right = (_real(each.values).double() for each in (one, other))
    # Equal infinities, and NaN in the same places, are no difference.
    same = (left == right) | (left.isnan() & right.isnan())
    difference = torch.where(same, 0.0, left - right).abs().nan_to_num(torch.inf)
    if not bool(difference.any()):
        return 0.0, 0.0
    size = left[left.isfinite()].norm()
    return float(difference.amax()), float(difference.norm() / size) if size > 0 else torch.inf


def _statistics_error(one: RecordedTensor, other: RecordedTensor) -> tuple[float, float]:
    left, right = one.statistics, other.statistics
    pairs = [(left.norm, right.norm), (left.minimum, right.minimum), (left.maximum, right.maximum)]
    pairs += [(left.mean, right.mean)]
    if left.non_finite != right.non_finite or any((a is None) != (b is None) for a, b in pairs):
        return torch.inf, torch.inf
    known = list(_both(pairs))
    differences = [abs(a - b) for a, b in known]
    # What is near zero by cancellation, like the mean after a norm layer, differs by rounding as large as itself.
    size = max(_root_mean_square(left), _root_mean_square(right))
    relative = [abs(a - b) / max(abs(a), abs(b), size) for a, b in known if a != b]
    if one.values.shape == other.values.shape and one.values.dtype == other.values.dtype:
        values, share = _whole_error(one, other)
        return max([values, *differences]), max([share, *relative])
    return max(differences, default=0.0), max(relative, default=0.0)


def _root_mean_square(statistics: TensorStatistics) -> float:
    finite = math.prod(statistics.shape) * (1 - statistics.non_finite)
    return (statistics.norm or 0.0) / math.sqrt(max(1.0, finite))


def _both(pairs: list[tuple[float | None, float | None]]) -> Iterator[tuple[float, float]]:
    for one, other in pairs:
        if one is not None and other is not None:
            yield one, other


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values
