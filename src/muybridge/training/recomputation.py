"""Repeated blocks of networks: computed again in the backward pass instead of kept, compiled, shared out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from muybridge.errors import ConfigError
from muybridge.training.config import Recomputation

_KEPT = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
"""What takes longest to compute for the memory that its result takes."""


def recompute(method: nn.Module, mode: Recomputation) -> None:
    """Let the networks of a method keep less for the backward pass, and compute it again; gradients stay what they are.

    Raises:
        ConfigError: no network of it can.
    """
    if mode == "none":
        return
    contexts = _contexts if mode == "selective" else noop_context_fn
    # The other way of torch gives no gradient at all where a block's inputs need none.
    again = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    found = [network for network in _networks(method) if network._supports_gradient_checkpointing]
    if not found:
        raise ConfigError(
            f"gradient_checkpointing {mode} has no effect: no network of this {type(method).__name__} has blocks to "
            "compute again. Leave it out."
        )
    for network in found:
        network.enable_gradient_checkpointing(again)


def compile_blocks(method: nn.Module) -> None:
    """Compile the repeated blocks of the networks of a method, each kind of block once.

    Raises:
        ConfigError: no network of it has repeated blocks.
    """
    found = [network for network in _networks(method) if _has_repeated(network)]
    if not found:
        raise ConfigError(
            f"compile has no effect: no network of this {type(method).__name__} has repeated blocks. Leave it out."
        )
    for network in found:
        network.compile_repeated_blocks()


def blocks_of(method: nn.Module) -> list[nn.Module]:
    """The blocks that the networks of a method are to be split between, none of them inside another."""
    kinds = {name for module in method.modules() for name in (getattr(module, "_no_split_modules", None) or ())}
    return list(_outermost(method, kinds))


def _outermost(module: nn.Module, kinds: set[str]) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child).__name__ in kinds:
            yield child
        else:
            yield from _outermost(child, kinds)


def _networks(method: nn.Module) -> list[ModelMixin]:
    return [module for module in method.modules() if isinstance(module, ModelMixin)]


def _has_repeated(network: nn.Module) -> bool:
    names = getattr(network, "_repeated_blocks", None) or ()
    return any(type(module).__name__ in names for module in network.modules())


def _contexts() -> tuple[Any, Any]:
    packets = (getattr(torch.ops.aten, name, None) for name in _KEPT)
    return create_selective_checkpoint_contexts([packet.default for packet in packets if packet is not None])
