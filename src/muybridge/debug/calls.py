"""Watching modules being called, without being seen by them."""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks_with_kwargs as _hooks_with_kwargs
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from muybridge.debug.modules import Target, modules_of, roots_of
from muybridge.errors import ConfigError


@dataclass(eq=False)
class ModuleCall:
    """One call of one module.

    Attributes:
        name: of the module, in full.
        module: itself.
        number: how many calls of it came before, since the tool was entered.
        args: positional arguments. Many layers change tensors in place, so after the call they may have other values.
        kwargs: keyword arguments; torch tells them after the call only.
        note: what a tool wants to remember from before the call until after it.
    """

    name: str
    module: nn.Module
    number: int
    args: tuple[object, ...]
    kwargs: dict[str, object] = field(default_factory=dict)
    note: Any = None


class ModuleObserver:
    """A context in which `before` and `after` are told about every call of the chosen modules, by this thread.

    The hooks are torch's global ones, which modules do not know of: layers that take a faster path where no hook waits
    for their parts go on taking it, so results stay the same to the last bit. What such a path passes over is not
    called, and not told. Inside `torch.compile` modules are not called at all; look at the model before compiling it.
    """

    def __init__(self, target: Target, modules: Mapping[str, nn.Module] | None = None) -> None:
        """Watch `modules` of `target` by their full names, or all of them."""
        self.target = target
        self._names = {id(module): name for name, module in (modules or modules_of(target)).items()}
        self._handles: list[RemovableHandle] = []
        self._stack: list[ModuleCall] = []
        self._counts: Counter[str] = Counter()
        self._thread = 0

    def before(self, call: ModuleCall) -> None:
        """A module is about to run."""

    def after(self, call: ModuleCall, output: object) -> None:
        """A module has run. Not told where it, or something in it, raised an exception."""

    @property
    def active(self) -> bool:
        """Whether the context is entered."""
        return bool(self._handles)

    def __enter__(self) -> Self:
        if self.active:
            raise ConfigError(f"This {type(self).__name__} is in use already; make another one.")
        self._thread = threading.get_ident()
        self._stack.clear()
        self._counts.clear()
        self._handles = [
            register_module_forward_pre_hook(self._on_start),
            register_module_forward_hook(self._on_end, with_kwargs=True),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
            # torch forgets this entry, and then takes every module for a hooked one.
            _hooks_with_kwargs.pop(handle.id, None)
        self._handles.clear()
        self._stack.clear()

    def _on_start(self, module: nn.Module, args: tuple[object, ...]) -> None:
        name = self._names.get(id(module))
        if name is None or threading.get_ident() != self._thread:
            return
        call = ModuleCall(name, module, self._counts[name], args)
        self._counts[name] += 1
        self._stack.append(call)
        self.before(call)

    def _on_end(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        if id(module) not in self._names or threading.get_ident() != self._thread:
            return
        # Calls above it on the stack ended in an exception that somebody caught.
        while self._stack:
            call = self._stack.pop()
            if call.module is module:
                call.kwargs = kwargs
                self.after(call, output)
                return


class StepCounter:
    """Counts the steps of a denoising loop by the noise levels that its network is told; else the network's calls.

    Values are read only when somebody asks, so that nothing waits for the device.
    """

    def __init__(self, target: Target) -> None:
        """Look at the networks of `target` that take a `timestep`, or at all where none does."""
        roots = list(roots_of(target).values())
        self._told = [root for root in roots if "timestep" in inspect.signature(root.forward).parameters]
        self._roots = self._told or roots
        self._levels: list[Tensor | float | None] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> StepCounter:
        self._levels.clear()
        self._handles = [root.register_forward_pre_hook(self._note, with_kwargs=True) for root in self._roots]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def describe(self) -> str:
        """For example "step 3 (timestep 761)"; two calls in a row at one noise level are one step."""
        if not self._levels:
            return "before the first step"
        if not self._told:
            return f"call {len(self._levels)}"
        levels = [_plain(level) for level in self._levels]
        step = 1 + sum(one != other for one, other in pairwise(levels))
        return f"step {step} (timestep {', '.join(f'{value:g}' for value in levels[-1][:4])})"

    def _note(self, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._told:
            self._levels.append(None)
            return
        names = list(inspect.signature(root.forward).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        level = given.get("timestep")
        self._levels.append(level.detach() if isinstance(level, Tensor) else level)


def _plain(level: Tensor | float | None) -> list[float]:
    if isinstance(level, Tensor):
        return [float(value) for value in level.flatten().unique(sorted=True).tolist()]
    return [] if level is None else [float(level)]
