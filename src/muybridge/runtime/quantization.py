"""Linear layers with fewer bits, through torchao."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn

from muybridge.errors import ConfigError

Scheme = Literal["int8_weights", "int8_dynamic", "fp8_weights"]
_MIN_FEATURES = 32  # below, scales and kernels cost more than the few weights


def quantize(network: nn.Module, scheme: Scheme) -> None:
    """Replace the weights of linear layers by quantized ones, in place; layers below 32 features are left.

    Args:
        network: on the device where it is to run.
        scheme: "int8_weights" and "fp8_weights" store weights in 8 bits and multiply in the network's precision;
            "int8_dynamic" quantizes activations too, token by token, and multiplies integers.

    Raises:
        ConfigError: torchao is not installed, or no layer is large enough.
    """
    with quietly():
        try:
            from torchao.quantization import (  # pyright: ignore[reportMissingImports]
                Float8WeightOnlyConfig,
                Int8DynamicActivationInt8WeightConfig,
                Int8WeightOnlyConfig,
                quantize_,
            )
        except ImportError as error:
            raise ConfigError("Quantization needs torchao: pip install 'muybridge[quantize]'.") from error
        configs: dict[str, Callable[[], object]] = {
            "int8_weights": Int8WeightOnlyConfig,
            "int8_dynamic": Int8DynamicActivationInt8WeightConfig,
            "fp8_weights": Float8WeightOnlyConfig,
        }
        if not has_large_layers(network):
            raise ConfigError(f"{type(network).__name__} has no linear layer of {_MIN_FEATURES} features or more.")
        quantize_(network, configs[scheme](), filter_fn=lambda module, _name: _is_large(module))


def has_large_layers(network: nn.Module) -> bool:
    """Whether there is a linear layer that gains by quantization."""
    return any(_is_large(module) for module in network.modules())


def _is_large(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and min(module.in_features, module.out_features) >= _MIN_FEATURES


@contextmanager
def quietly() -> Iterator[None]:
    """Without torchao's notes about kernels for other GPUs than the one here."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
