"""Which module is the first to produce values that are not numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def first_anomalous_module(model: nn.Module, run: Callable[[], object]) -> str | None:
    """Look at the weights, then run once more with every leaf module watched.

    Args:
        model: whose modules to watch.
        run: calls the model, with the input that went wrong.

    Returns:
        Name and class of the first of these that there is, or None where nothing is wrong: a weight that is NaN or
        infinite; the first leaf module whose output is, or whose input already was, so that it happened between this
        module and the one before; the last leaf module, if its output is all zero.
    """
    broken = _first_broken_weight(model)
    if broken is not None:
        return broken
    found: list[str] = []
    last_zero: list[str | None] = [None]
    handles = []

    def watch(label: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: object, output: object) -> None:
            if not found and not _all_finite(output):
                found.append(label if _all_finite(inputs) else f"the input of {label}")
            last_zero[0] = None if any(bool(tensor.any()) for tensor in _tensors(output)) else label

        return hook

    for name, module in model.named_modules():
        if not any(module.children()):
            handles.append(module.register_forward_hook(watch(f"{name} ({type(module).__name__})")))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else last_zero[0]


def _first_broken_weight(model: nn.Module) -> str | None:
    for name, weight in model.named_parameters():
        # Where weights are offloaded, a meta tensor stands in for them.
        if weight.device.type != "meta" and not _all_finite(weight):
            return f"{name} ({type(model.get_submodule(name.rpartition('.')[0])).__name__})"
    return None


def _all_finite(value: object) -> bool:
    return all(bool(torch.isfinite(tensor.float()).all()) for tensor in _tensors(value))


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [item for item in output if isinstance(item, Tensor)]
    return []
