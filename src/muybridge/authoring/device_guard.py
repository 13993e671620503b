"""Finding tensors that are not where they should be, on a machine that has no second device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from muybridge.types import SettingsView

_aten = torch.ops.aten
_MAY_CROSS = frozenset({_aten.copy_, _aten._to_copy, _aten.index, _aten.index_put, _aten.index_put_})
"""Copies are what takes tensors from one device to another, and a GPU takes indices from the CPU."""


class TwoDevicesError(RuntimeError):
    """An operation got tensors of two devices."""


class OneDevice(TorchDispatchMode):
    """Refuses what a GPU would refuse: an operation on tensors of two devices.

    torch's `meta` device stands for the GPU. By itself it lets some operations pass, matrix products among them.

    Raises:
        TwoDevicesError: names the operation.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: SettingsView | None = None,
    ) -> Any:
        """Run an operation whose tensors share a device; a CPU tensor of one number goes with any."""
        kwargs = dict(kwargs or {})
        packet: Any = getattr(func, "overloadpacket", None)
        if packet not in _MAY_CROSS:
            devices = {each.device.type for each in tree_iter([args, kwargs]) if isinstance(each, Tensor) and each.ndim}
            if len(devices) > 1:
                others = ", ".join(sorted(devices - {"meta"}))
                raise TwoDevicesError(f"{packet} gets tensors of the features' device and of {others}")
        return func(*args, **kwargs)
