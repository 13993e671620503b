"""Stops at the first value that is NaN, infinite or about to be, and says where it came from."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor, nn

from muybridge.debug.calls import ModuleCall, ModuleObserver, StepCounter
from muybridge.debug.modules import Target, label, modules_of
from muybridge.debug.reproduction import RecordedCall, autocast_dtype, save_reproduction
from muybridge.debug.statistics import TensorStatistics, inputs_of, outputs_of, real_values
from muybridge.errors import ConfigError, NonFiniteError

Direction = Literal["forward", "backward"]
_SHOWN_WEIGHTS = 6


@dataclass(frozen=True)
class Anomaly:
    """The first value that went wrong.

    Attributes:
        module: its full name.
        label: name and class.
        kind: "NaN", "infinite", or "overflow" for finite values close to the largest that the dtype has.
        direction: "forward" or "backward"; backward, all statistics but those of weights are of gradients.
        arose: "inside" the module, "before" it (its input was wrong already; the module before gave a good output, so
            it was an operation between the two), or "after" it (backward: the gradient came in wrong).
        step: for example "step 3 (timestep 761)".
        inputs: statistics.
        outputs: statistics.
        weights: statistics.
        inputs_changed: whether the module had changed its inputs in place, so that theirs are not what it was given.
        reproduction: the file that holds the call, if one was asked for.
    """

    module: str
    label: str
    kind: str
    direction: Direction
    arose: str
    step: str
    inputs: list[TensorStatistics]
    outputs: list[TensorStatistics]
    weights: list[TensorStatistics]
    inputs_changed: bool
    reproduction: Path | None

    def __str__(self) -> str:
        verb = "close to overflow" if self.kind == "overflow" else self.kind
        place = {"inside": "in", "before": "before", "after": "after"}[self.arose]
        lines = [f"Values became {verb} {place} {self.label}, {self.direction}, {self.step}."]
        what = "gradient of " if self.direction == "backward" else ""
        lines += [f"  {what}{each}" for each in (*self.inputs, *self.outputs)]
        weights = sorted(self.weights, key=lambda each: -each.non_finite)
        lines += [f"  {each}" for each in weights[:_SHOWN_WEIGHTS]]
        if self.inputs_changed:
            lines.append("  It changes its inputs in place; copy_inputs=True keeps what it was given.")
        if self.reproduction is not None:
            lines.append(f"  Replay it with muybridge.debug.replay_anomaly({str(self.reproduction)!r}, model).")
        return "\n".join(lines)


@dataclass(eq=False)
class _Backward:
    """A call whose gradients are to come. Outputs are not held: their hooks hold this.

    Attributes:
        call: with its arguments where they are to be saved.
        autocast: as it was during the call.
        gradients: of its outputs, while those of its inputs are awaited.
        inputs: how many gradients of inputs will come.
        arrived: how many have.
    """

    call: ModuleCall
    autocast: str | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    inputs: int = 0
    arrived: int = 0


class AnomalyGuard(ModuleObserver):
    """Looks at what every module gives, and at every gradient; results stay the same to the last bit.

    Costs one pass over each output, and on a GPU a wait for each module. Innermost modules end first, so the one named
    is the smallest that the values went wrong in.

    Attributes:
        anomaly: what was found, or None.
        step: a name for the present step, for loops that know it better; else it is counted.
    """

    def __init__(
        self,
        target: Target,
        *,
        folder: str | Path | None = None,
        overflow_share: float = 0.9,
        backward: bool = True,
        autograd: bool = False,
        copy_inputs: bool = False,
    ) -> None:
        """Put the guard around a network or a pipeline.

        Args:
            target: what to watch.
            folder: where to save the call that went wrong, for `replay_anomaly`.
            overflow_share: of the largest finite value of a dtype; what exceeds it counts as overflow. 1 waits for
                infinity. The lowest value itself, which masks are made of, does not count.
            backward: watch gradients, where there are any. With `folder`, the inputs of all modules live until then.
            autograd: turn on autograd's anomaly mode as well: slow, and shows which line made the operation.
            copy_inputs: copy the inputs of every call, for modules that change theirs in place.

        Raises:
            ConfigError: a share outside 0 to 1, or no network.
        """
        if not 0 < overflow_share <= 1:
            raise ConfigError(f"overflow_share must be more than 0 and at most 1; given {overflow_share}.")
        super().__init__(target)
        self.anomaly: Anomaly | None = None
        self.step: str | None = None
        self.folder = None if folder is None else Path(folder)
        self.overflow_share = overflow_share
        self.backward = backward
        self.autograd = autograd
        self.copy_inputs = copy_inputs
        self._steps = StepCounter(target)
        self._detection: torch.autograd.set_detect_anomaly | None = None
        self._checked: tuple[weakref.ref[Tensor] | None, int] = (None, 0)
        self._latest: weakref.WeakValueDictionary[str, _Backward] = weakref.WeakValueDictionary()
        self._arriving: _Backward | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self.anomaly = None
        self._steps.__enter__()
        if self.backward:
            self._watch_weights()
        if self.autograd:
            self._detection = torch.autograd.set_detect_anomaly(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._steps.__exit__()
        if self._detection is not None:
            self._detection.__exit__()
            self._detection = None
        arriving, self._arriving = self._arriving, None
        if self.autograd and isinstance(error, RuntimeError) and "returned nan values" in str(error):
            where = "" if arriving is None else f" in or before {label(arriving.call.name, arriving.call.module)}"
            raise NonFiniteError(
                f"{error} It happened backward{where}, {self._now()}; autograd shows the line that made the operation."
            ) from error

    def before(self, call: ModuleCall) -> None:
        """Remember what the inputs were."""
        if self.copy_inputs:
            call.args = _copied(call.args)
        else:
            call.note = [(value, _version(value)) for _, value in inputs_of(call.args, {})]

    def after(self, call: ModuleCall, output: object) -> None:
        """Look at the output; and at its gradient, once there is one."""
        outputs = list(outputs_of(output))
        for _, value in outputs:
            if (kind := self._wrong(value)) is not None:
                raise NonFiniteError(str(self._forward_anomaly(call, output, kind)))
        if self.backward and torch.is_grad_enabled():
            self._expect_gradients(call, outputs)

    def _forward_anomaly(self, call: ModuleCall, output: object, kind: str) -> Anomaly:
        changed = any(_version(value) != version for value, version in call.note or ())
        given = () if changed else inputs_of(call.args, call.kwargs)
        bad_input = next(filter(None, (self._wrong(value) for _, value in given)), None)
        kind, arose = (kind, "inside") if bad_input is None else (bad_input, "before")
        recorded = RecordedCall(call.name, call.module, call.args, call.kwargs, output, {}, autocast_dtype(output))
        return self._found(recorded, kind, "forward", arose, changed)

    def _found(self, call: RecordedCall, kind: str, direction: Direction, arose: str, changed: bool) -> Anomaly:
        backward = direction == "backward"
        shown = call.gradients.items() if backward else [*inputs_of(call.args, call.kwargs), *outputs_of(call.output)]
        statistics = [TensorStatistics.of(name, value) for name, value in shown]
        facts = {"kind": kind, "direction": direction, "arose": arose, "step": self._now(), "inputs_changed": changed}
        path = None
        if self.folder is not None:
            kept = {name: value for name, value in call.gradients.items() if name.startswith("output")}
            path = save_reproduction(self.folder, replace(call, gradients=kept), facts)
        self.anomaly = Anomaly(
            module=call.name,
            label=label(call.name, call.module),
            kind=kind,
            direction=direction,
            arose=arose,
            step=self._now(),
            inputs=[each for each in statistics if each.name.startswith("input")],
            outputs=[each for each in statistics if each.name.startswith("output")],
            weights=[*_weight_statistics(call.module)],
            inputs_changed=changed,
            reproduction=path,
        )
        return self.anomaly

    def _now(self) -> str:
        return self._steps.describe() if self.step is None else self.step

    def _wrong(self, tensor: Tensor) -> str | None:
        if not _can_go_wrong(tensor) or self._seen(tensor):
            return None
        info = torch.finfo(tensor.dtype)
        values = real_values(tensor)
        low, high = torch.stack(torch.aminmax(values)).tolist()
        if math.isnan(low):
            return "NaN"
        if high == float("inf") or low == -float("inf"):
            return "infinite"
        limit = info.max * self.overflow_share
        if high > limit or (low < -limit and low != info.min):
            return "overflow"
        if low == info.min and bool(((values < -limit) & (values != info.min)).any()):
            return "overflow"
        self._checked = (weakref.ref(tensor), _version(tensor))
        return None

    def _seen(self, tensor: Tensor) -> bool:
        # A module often returns what its last part returned.
        last, version = self._checked
        return last is not None and last() is tensor and version == _version(tensor) >= 0

    def _watch_weights(self) -> None:
        for name, module in modules_of(self.target).items():
            for own, weight in module.named_parameters(recurse=False):
                if weight.requires_grad:
                    self._handles.append(weight.register_hook(partial(self._on_weight_gradient, name, module, own)))

    def _expect_gradients(self, call: ModuleCall, outputs: Iterable[tuple[str, Tensor]]) -> None:
        made = {name: value for name, value in outputs if value.requires_grad}
        if not made:
            return
        kept = ModuleCall(call.name, call.module, call.number, (), {})
        if self.folder is not None:
            kept.args, kept.kwargs = call.args, call.kwargs
        record = _Backward(kept, autocast_dtype(list(made.values())))
        self._latest[call.name] = record
        identities = {id(value) for value in made.values()}
        for name, value in made.items():
            self._hook(value, partial(self._on_output_gradient, record, name))
        for name, value in inputs_of(call.args, call.kwargs):
            if value.requires_grad and id(value) not in identities:
                record.inputs += 1
                self._hook(value, partial(self._on_input_gradient, record, name))

    def _hook(self, tensor: Tensor, hook: Callable[[Tensor], None]) -> None:
        handle = tensor.register_hook(hook)
        if tensor.is_leaf:  # other tensors' hooks go with the graph
            self._handles.append(handle)

    def _on_output_gradient(self, record: _Backward, name: str, gradient: Tensor) -> None:
        if self.active:
            record.gradients[name] = gradient
            self._arriving = record

    def _on_input_gradient(self, record: _Backward, name: str, gradient: Tensor) -> None:
        if not self.active:
            return
        if (kind := self._wrong(gradient)) is not None:
            raise NonFiniteError(str(self._backward_anomaly(record, kind, {name: gradient})))
        record.arrived += 1
        if record.arrived == record.inputs:  # until then the gradients of the outputs may be what went wrong
            record.arrived = 0
            record.gradients.clear()

    def _on_weight_gradient(self, name: str, module: nn.Module, weight: str, gradient: Tensor) -> None:
        if not self.active or (kind := self._wrong(gradient)) is None:
            return
        record = self._latest.get(name) or _Backward(ModuleCall(name, module, 0, ()))
        raise NonFiniteError(str(self._backward_anomaly(record, kind, {f"input weight {weight}": gradient})))

    def _backward_anomaly(self, record: _Backward, kind: str, found: Mapping[str, Tensor]) -> Anomaly:
        arose = "after" if any(self._wrong(value) for value in record.gradients.values()) else "inside"
        call = record.call
        gradients = {**found, **record.gradients}
        recorded = RecordedCall(call.name, call.module, call.args, call.kwargs, None, gradients, record.autocast)
        return self._found(recorded, kind, "backward", arose, changed=False)


def _can_go_wrong(tensor: Tensor) -> bool:
    kind = tensor.dtype
    has_range = (kind.is_floating_point or kind.is_complex) and kind.itemsize > 1  # the 8-bit kinds have no reductions
    return has_range and tensor.numel() > 0 and not tensor.is_meta


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _copied(args: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in args)


def _weight_statistics(module: nn.Module) -> Iterable[TensorStatistics]:
    for name, weight in module.named_parameters():
        yield TensorStatistics.of(f"weight {name}", weight)
