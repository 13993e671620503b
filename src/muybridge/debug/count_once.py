"""Counting the memory of a network whose layers repeat: one of each kind is run, the others are known by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from muybridge.debug.tensor_memory import TensorMemory

_PLAIN = (int, float, bool, str, bytes, type(None), Enum, torch.dtype, torch.device, slice)
_COSTLY = (nn.LayerNorm, nn.GroupNorm, nn.Conv2d, nn.Conv3d)
_OF_NO_ACCOUNT = frozenset({"training", "site_name"})
"""Attributes of modules that change no shape: two modules that differ in nothing else are of one kind."""


@dataclass(frozen=True)
class _Made:
    """A tensor that a call gave back: what it looks like, and which of the arguments it is a view of, if any."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device
    argument: int | None

    def again(self, arguments: list[Tensor]) -> Tensor:
        if self.argument is not None:
            return arguments[self.argument].as_strided(self.size, self.stride, self.offset)
        with torch._C.DisableTorchFunction():  # modes that fill in a device have nothing to say here, and take longer
            return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class _Known:
    """What is known of a kind of call: its result, and how much more memory there was inside it than before it."""

    result: object
    peak_bytes: int


class Seen:
    """What is known of calls of some networks, whose shapes of weights and settings do not change meanwhile."""

    def __init__(self) -> None:
        """Of none."""
        self.known: dict[Hashable, _Known | None] = {}
        self.kinds = _Kinds()


class CountOnce:
    """While it is active, a call of a module that is like one before is not run: only its memory is counted.

    Alike are calls of modules of one class, with the same settings and shapes of weights, with arguments of the same
    shapes and values. Their results have the right shapes and no numbers, so this is for networks on the meta device or
    under a `FakeTensorMode`, without gradients. Calls with arguments that are neither tensors nor plain values (nor
    tuples, dictionaries or dataclasses of them) are run: a list, say, may be changed by the call. So are modules
    without parts, as they cost little and others may look at how they are called; but for norms, which on the meta
    device are twenty operations each.
    """

    def __init__(self, networks: Iterable[nn.Module], memory: TensorMemory, seen: Seen | None = None) -> None:
        """For all modules in `networks`; `memory` counts, and must be active as long as this is.

        `seen` is what was learned while networks that live as long as it were counted before; it learns more.
        """
        seen = Seen() if seen is None else seen
        found = {id(module): module for network in networks for module in network.modules()}
        self._modules: list[nn.Module] = [
            each for each in found.values() if isinstance(each, _COSTLY) or any(each.children())
        ]
        self._memory = memory
        self._known = seen.known
        self._kinds = seen.kinds

    def __enter__(self) -> Self:
        for module in self._modules:
            for name in _counted_methods(type(module)):
                setattr(module, name, self._counted(module, getattr(module, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module in self._modules:
            for name in _counted_methods(type(module)):
                vars(module).pop(name, None)

    def _counted(self, module: nn.Module, forward: Callable[..., object]) -> Callable[..., object]:
        kind = (self._kinds.number_of(module), forward.__name__)

        def call(*arguments: object, **options: object) -> object:
            tensors: list[Tensor] = []
            try:
                key = (kind, _key_of((arguments, options), tensors))
            except _UnknownArgumentError:
                return forward(*arguments, **options)
            known = self._known.get(key)
            if known is None:
                storages = self._memory.storages(tensors)
                tensors.clear()  # so that what the call lets go of is gone
                before, live = self._memory.begin_part()
                result = forward(*arguments, **options)
                peak = self._memory.end_part(before) - live
                self._remember(key, result, peak, storages)
                return result
            self._memory.count_peak(known.peak_bytes)
            return _rebuilt(known.result, tensors)

        return call

    def _remember(self, key: Hashable, result: object, peak: int, arguments: list[object]) -> None:
        def argument_of(tensor: Tensor) -> int | None:
            (storage,) = self._memory.storages([tensor])
            return next((index for index, each in enumerate(arguments) if each == storage), None)

        try:
            self._known[key] = _Known(_described(result, argument_of), peak)
        except _UnknownArgumentError:  # an iterator, say, or an object of a library
            self._known[key] = None


@cache
def _counted_methods(kind: type[nn.Module]) -> tuple[str, ...]:
    """The names of `forward`, and of what runs piece by piece (see `motion.pieces.one_piece`)."""
    names = {name for base in kind.__mro__ for name in vars(base) if hasattr(getattr(kind, name), "is_one_piece")}
    return ("forward", *sorted(names))


class _UnknownArgumentError(Exception):
    """Something that cannot be compared or made again."""


class _Kinds:
    """Numbers modules so that those of one kind have one number; each is looked at once, while nothing changes it."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._found: dict[int, int] = {}

    def number_of(self, module: nn.Module) -> int:
        if id(module) not in self._found:
            parts = tuple((name, self.number_of(child)) for name, child in module.named_children())
            self._found[id(module)] = self._numbers.setdefault((_own_kind(module), parts), len(self._numbers))
        return self._found[id(module)]


def _own_kind(module: nn.Module) -> Hashable:
    """What a module must share with another, beside its children, to count as alike."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and _is_plain(value)}
    weights = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return (
        type(module),
        tuple(sorted((name, repr(value)) for name, value in own.items() if name not in _OF_NO_ACCOUNT)),
        tuple((name, tensor.shape, tensor.dtype) for name, tensor in weights),
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN) or (is_dataclass(value) and not isinstance(value, type))


def _key_of(value: object, tensors: list[Tensor]) -> Hashable:
    """What two values must share to count as alike; the tensors in them are appended to `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return (value.shape, value.stride(), value.dtype, value.device)
    if isinstance(value, _PLAIN):
        return (type(value), str(value) if isinstance(value, slice) else value)
    parts = _parts_of(value)
    return (type(value), tuple((name, _key_of(part, tensors)) for name, part in parts))


def _parts_of(value: object) -> list[tuple[Hashable, object]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, tuple):
        return list(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    raise _UnknownArgumentError


def _described(result: object, argument_of: Callable[[Tensor], int | None]) -> object:
    """The result of a call with each tensor replaced by what it looks like."""
    if isinstance(result, Tensor):
        index = argument_of(result)
        offset = result.storage_offset() if index is not None else 0
        return _Made(result.shape, result.stride(), int(offset), result.dtype, result.device, index)
    if isinstance(result, _PLAIN):
        return result
    if isinstance(result, (tuple, list)):
        return type(result)(_described(part, argument_of) for part in result)
    raise _UnknownArgumentError


def _rebuilt(described: object, arguments: list[Tensor]) -> object:
    if isinstance(described, _Made):
        return described.again(arguments)
    if isinstance(described, (tuple, list)):
        return type(described)(_rebuilt(part, arguments) for part in described)
    return described
