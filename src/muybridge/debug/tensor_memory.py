"""How much memory tensors take, counted as they come and go: on any device, and on none."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MethodDescriptorType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from muybridge.processor import fused_attention

_KEEP_PRECISION = frozenset(
    getattr(torch.ops.aten, name + end)
    for name in ("add", "sub", "mul", "div", "addcmul", "lerp", "silu", "gelu", "clamp", "rsqrt", "sqrt", "exp", "pow")
    for end in ("", "_")
    if hasattr(torch.ops.aten, name + end)
)
"""Operations on each number that give numbers of the same kind, floating point ones at least."""
_HARMLESS = {"alpha", "value", "approximate"}
"""Options of them that change no shape."""


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is active, and are still alive.

    Each storage counts once, however many views it has; operations in place add nothing. On the meta device, where no
    numbers are computed, this tells what a network of any size would take. What a kernel needs inside itself is not
    seen, nor are tensors from before; `scaled_dot_product_attention` of meta tensors counts as the fused kernel that it
    is on a GPU, without its matrix of scores.

    Not for threads: only what the thread that entered it does is counted.

    Attributes:
        live_bytes: now. Tensors that outlive the context still leave the count when they go.
        peak_bytes: the most there was at a time since the context was entered.
    """

    def __init__(self) -> None:
        """Counts from zero; entered again, it goes on from what is alive."""
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known: dict[int, weakref.finalize[..., torch.UntypedStorage]] = {}
        self._attention = _FusedAttentionOnMeta()

    def __enter__(self) -> TensorMemory:
        self._attention.__enter__()
        self.peak_bytes = self.live_bytes
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation and count the storages that it made."""
        kwargs = dict(kwargs or {})
        if getattr(func, "is_view", False):
            return func(*args, **kwargs)
        if (result := _without_numbers(func, args, kwargs)) is None:
            result = func(*args, **kwargs)
        new = [tensor for tensor in _tensors(result) if _address(tensor) not in self._known]
        if new:
            # A view, or a result in place, has the storage of an argument, perhaps one from before.
            old = {_address(tensor) for tensor in _tensors(kwargs, _tensors(args))}
            for tensor in new:
                if _address(tensor) not in old:
                    self._count(tensor.untyped_storage())
        return result

    def storages(self, tensors: Iterable[Tensor]) -> list[object]:
        """What tells the storage of each tensor from those of all others, also from later ones at its address."""
        addresses = [_address(tensor) for tensor in tensors]
        return [(address, id(self._known.get(address))) for address in addresses]

    def begin_part(self) -> tuple[int, int]:
        """Begin to look for the peak of a part; returns the peak so far, for `end_part`, and what is alive."""
        before, self.peak_bytes = self.peak_bytes, self.live_bytes
        return before, self.live_bytes

    def end_part(self, before: int) -> int:
        """The peak since `begin_part` gave `before`."""
        peak, self.peak_bytes = self.peak_bytes, max(before, self.peak_bytes)
        return peak

    def count_peak(self, more_bytes: int) -> None:
        """Count something that was known without being made: `more_bytes` on top of what is alive, for a moment."""
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + more_bytes)

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address in self._known:
            return
        size = storage.nbytes()
        self._known[address] = weakref.finalize(storage, self._forget, address, size)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, address: int, size: int) -> None:
        del self._known[address]
        self.live_bytes -= size


class _FusedAttentionOnMeta(TorchFunctionMode):
    """Keeps attention one operation, where torch would compute it in steps for want of a kernel."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and _can_fuse(*args, **(kwargs or {})):
            return fused_attention(*args, **(kwargs or {}))
        if type(func) is MethodDescriptorType:  # of tensors, whose devices are known: no other mode has a say
            with torch._C.DisableTorchFunction():
                return func(*args, **(kwargs or {}))
        return func(*args, **kwargs) if kwargs else func(*args)


def _without_numbers(
    func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, object]
) -> Tensor | tuple[Tensor, ...] | None:
    """What some of the usual operations give on the meta device, which takes ten times as long to say it.

    None where this does not know: other operations, other devices, arguments of several shapes or precisions.
    """
    first = args[0] if args else None
    if not (isinstance(first, Tensor) and first.is_meta and first.is_floating_point()):
        return None
    return _like_first(func, first, args) if kwargs.keys() <= _HARMLESS else _given(func, first, kwargs)


def _like_first(func: OpOverload, first: Tensor, args: Sequence[Any]) -> Tensor | tuple[Tensor, ...] | None:
    if func is torch.ops.aten.native_layer_norm.default:
        return _normalised(first, len(args[1]))
    if func is torch.ops.aten.addmm.default:
        return torch.empty(len(args[1]), args[2].shape[1], dtype=first.dtype, device="meta")
    if torch.Tag.pointwise not in func.tags or func.overloadpacket not in _KEEP_PRECISION:
        return None
    if func._schema.is_mutable:
        return first
    fits = _is_dense(first) and all(_goes_with(value, first) for value in args[1:] if isinstance(value, Tensor))
    return torch.empty_strided(first.shape, first.stride(), dtype=first.dtype, device="meta") if fits else None


def _given(func: OpOverload, first: Tensor, kwargs: Mapping[str, object]) -> Tensor | None:
    """The tensor that the result is to be written to, where it looks like the first argument."""
    out = kwargs.get("out")
    known = func.overloadpacket in _KEEP_PRECISION and len(kwargs) == 1
    return out if known and isinstance(out, Tensor) and out.shape == first.shape and out.dtype == first.dtype else None


def _is_dense(x: Tensor) -> bool:
    """Whether it fills the memory from its first to its last number; the results of others are laid out anew."""
    return sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1 == x.numel()


def _goes_with(other: Tensor, first: Tensor) -> bool:
    """Whether a result of both is laid out as the first."""
    if other.dtype != first.dtype:
        return False
    if other.shape == first.shape:
        return other.stride() == first.stride()
    repeats = all(own in (1, size) for own, size in zip(reversed(other.shape), reversed(first.shape), strict=False))
    return repeats and other.ndim <= first.ndim and first.is_contiguous()


def _normalised(x: Tensor, axes: int) -> tuple[Tensor, Tensor, Tensor]:
    statistics = (*x.shape[: x.ndim - axes], *(1,) * axes)
    precision = torch.promote_types(x.dtype, torch.float32)
    mean, scale = (torch.empty(statistics, dtype=precision, device="meta") for _ in range(2))
    return torch.empty(x.shape, dtype=x.dtype, device="meta"), mean, scale


def _can_fuse(query: Tensor, key: Tensor, value: Tensor, *_: object, **options: object) -> bool:
    same_heads = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    same_width = query.shape[-1] == value.shape[-1]
    return query.is_meta and query.ndim == 4 and same_heads and same_width and not options.get("enable_gqa")


def _tensors(values: object, found: list[Tensor] | None = None) -> list[Tensor]:
    # By hand: torch's own walk through trees takes longer than most operations on shapes alone.
    found = [] if found is None else found
    if isinstance(values, Tensor):
        if values.layout is torch.strided:
            found.append(values)
    elif isinstance(values, (tuple, list)):
        for value in values:
            _tensors(value, found)
    elif isinstance(values, dict):
        _tensors(tuple(values.values()), found)
    return found


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
