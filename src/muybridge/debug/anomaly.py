"""Which module is the first to produce values that are not numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def first_anomalous_module(model: nn.Module, run: Callable[[], Any]) -> str | None:
    """Run once more with every leaf module watched.

    Args:
        model: whose modules to watch.
        run: calls the model, with the input that went wrong.

    Returns:
        Name and class of the first leaf module whose output is NaN or infinite, else of the last one whose output is
        all zero and after which nothing else came, or None where nothing is wrong.
    """
    found: list[str] = []
    last_zero: list[str | None] = [None]
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not found and not bool(torch.isfinite(tensor).all()):
                    found.append(f"{name} ({type(module).__name__})")
                last_zero[0] = None if bool(tensor.any()) else f"{name} ({type(module).__name__})"

        return hook

    for name, module in model.named_modules():
        if not any(module.children()):
            handles.append(module.register_forward_hook(watch(name)))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else last_zero[0]


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [item for item in output if isinstance(item, Tensor)]
    return []
