"""Tensors inside arguments and results, and what can be said of each in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass

import torch
from torch import Tensor

from muybridge.types import SettingsDict, SettingsView


@dataclass(frozen=True)
class TensorStatistics:
    """What a tensor looks like. The numbers are in float64, of its finite values; None where it has none.

    Attributes:
        name: where the tensor was found.
        shape: of the tensor.
        dtype: without "torch.".
        minimum: smallest value.
        maximum: largest value.
        mean: average.
        norm: root of the sum of squares.
        non_finite: share of NaN and infinite values, 0 to 1.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float | None
    maximum: float | None
    mean: float | None
    norm: float | None
    non_finite: float

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> TensorStatistics:
        """Look at a tensor; one without values (on the meta device, or empty) has only shape and dtype."""
        shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta or tensor.numel() == 0:
            return cls(name, shape, dtype, None, None, None, None, 0.0)
        values = real_values(tensor).flatten().double()
        found, share = _numbers(values), 0.0
        if not all(map(math.isfinite, found)):
            good = values[values.isfinite()]
            share = 1 - good.numel() / values.numel()
            if not good.numel():
                return cls(name, shape, dtype, None, None, None, None, share)
            found = _numbers(good)
        low, high, mean, norm = found
        return cls(name, shape, dtype, low, high, mean, norm, share)

    @classmethod
    def from_dict(cls, values: SettingsView) -> TensorStatistics:
        """The reverse of `to_dict`."""
        return cls(**{**values, "shape": tuple(values["shape"])})

    def to_dict(self) -> SettingsDict:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.name} {self.dtype}{list(self.shape)}"
        if self.minimum is not None and self.maximum is not None and self.mean is not None:
            text += f" min {self.minimum:.4g} max {self.maximum:.4g} mean {self.mean:.4g}"
        return text + f" not finite {100 * self.non_finite:.3g} %"


def _numbers(values: Tensor) -> list[float]:
    """Smallest, largest, mean and norm of `float64 [n]`, read at once; one that is not finite shows in the mean."""
    return torch.stack([*torch.aminmax(values), values.mean(), values.dot(values).sqrt()]).tolist()


def real_values(tensor: Tensor) -> Tensor:
    """The tensor without its history; complex values as pairs."""
    tensor = tensor.detach()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def tensors_in(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Every dense tensor in nested tuples, lists, dictionaries and dataclasses, with where it is (`input.0.time`)."""
    if isinstance(value, Tensor):
        if value.layout is torch.strided:
            yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{name}.{key}")
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{name}.{index}")
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from tensors_in(getattr(value, each.name), f"{name}.{each.name}")


def inputs_of(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Iterator[tuple[str, Tensor]]:
    """Tensors among the arguments of a call: `input.0`, `input.mask`."""
    yield from tensors_in(args, "input")
    yield from tensors_in(kwargs, "input")


def outputs_of(output: object) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a result: `output`, or `output.0` and so on where there are several."""
    yield from tensors_in(output, "output")
