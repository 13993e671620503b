"""One module's call as files that anybody can open: inputs, weights, and what came out."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from muybridge.debug.modules import Target, modules_of, nearest_names
from muybridge.debug.statistics import TensorStatistics, outputs_of
from muybridge.errors import ConfigError, InputFileError
from muybridge.files.atomic import new_file
from muybridge.files.json_settings import read_json_object
from muybridge.types import SettingsDict, SettingsView

_PLAIN = (bool, int, float, str, type(None))
_OWN = "muybridge."  # only classes of ours are looked up by a name that stands in a file
FORMAT = "muybridge-reproduction-1"


@dataclass(frozen=True)
class Replay:
    """What a replayed call gave.

    Attributes:
        output: of the module.
        statistics: of each tensor in it.
        gradients: by input and weight, where the anomaly was in the backward pass.
        identical: whether the output is the recorded one to the last bit; None where none was recorded.
    """

    output: Any
    statistics: list[TensorStatistics]
    gradients: dict[str, TensorStatistics]
    identical: bool | None


@dataclass(frozen=True)
class RecordedCall:
    """What is written: a module, its arguments, and what came of them (`gradients` of the output, if backward).

    `autocast` is what `autocast_dtype` said during the call; the backward pass runs outside.
    """

    name: str
    module: nn.Module
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    output: object
    gradients: Mapping[str, Tensor]
    autocast: str | None


def save_reproduction(folder: Path, call: RecordedCall, facts: SettingsView) -> Path:
    """Write `anomaly-NAME.safetensors` and `.json`, and return the path of the latter.

    Raises:
        OutputError: the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    state = {**dict(call.module.named_buffers()), **call.module.state_dict()}
    tensors |= {f"state/{name}": value for name, value in state.items() if not value.is_meta}
    tensors |= {f"recorded/{name}": value for name, value in outputs_of(call.output)}
    tensors |= {f"gradient/{name}": value for name, value in call.gradients.items()}
    description: SettingsDict = {
        "format": FORMAT,
        "module": call.name,
        "class": f"{type(call.module).__module__}:{type(call.module).__qualname__}",
        "training": call.module.training,
        "grad": torch.is_grad_enabled() or bool(call.gradients),
        "autocast": call.autocast,
        "args": [_encode(value, f"input/{index}", tensors) for index, value in enumerate(call.args)],
        "kwargs": {name: _encode(value, f"input/{name}", tensors) for name, value in call.kwargs.items()},
        **facts,
    }
    stem = folder / f"anomaly-{call.name or 'model'}"
    # The order of the axes in memory decides which kernel runs, and files have none.
    description["layouts"] = {name: _axes(value) for name, value in tensors.items() if not value.is_contiguous()}
    # Copies: safetensors refuses tensors that share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(stem.with_name(stem.name + ".safetensors")) as path:
        save_file(plain, path)
    target = stem.with_name(stem.name + ".json")
    with new_file(target) as path:
        path.write_text(json.dumps(description, indent=1) + "\n")
    return target


def autocast_dtype(output: object) -> str | None:
    """The dtype of the autocast that is on for the device of a result, without "torch."; None where none is."""
    device = next((value.device.type for _, value in outputs_of(output)), "cpu")
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return str(torch.get_autocast_dtype(device)).removeprefix("torch.")


def replay_anomaly(path: str | Path, target: Target) -> Replay:
    """Run the recorded call again on the CPU: a copy of the module, with the recorded weights and inputs.

    Args:
        path: the `.json` file of a reproduction; its `.safetensors` lies beside it.
        target: the pipeline or network it came from, or one built the same way, or just that module. It stays as it is.

    Raises:
        InputFileError: the files are missing or damaged, or not a reproduction.
        ConfigError: `target` has no such module, or an argument could not be recorded.
    """
    path = Path(path)
    description, tensors = _read(path)
    module = copy.deepcopy(_find(description, target)).to_empty(device="cpu")
    _load_state(module, tensors, path)
    module.train(description["training"])
    args = tuple(_decode(value, tensors) for value in description["args"])
    kwargs = {name: _decode(value, tensors) for name, value in description["kwargs"].items()}
    wanted = {name.removeprefix("gradient/"): value for name, value in tensors.items() if name.startswith("gradient/")}
    inputs = {}
    if wanted:
        inputs = {name: value for name, value in tensors.items() if _is_float_input(name, value)}
        for value in inputs.values():
            value.requires_grad_()
    autocast = description["autocast"]
    mixed = torch.autocast("cpu", getattr(torch, autocast)) if autocast else nullcontext()
    with torch.set_grad_enabled(description["grad"]), mixed:
        output = module(*args, **kwargs)
    found = dict(outputs_of(output))
    recorded = {name.removeprefix("recorded/"): value for name, value in tensors.items() if name.startswith("recorded")}
    same = all(name in found and _equal(found[name], value) for name, value in recorded.items()) if recorded else None
    statistics = [TensorStatistics.of(name, value) for name, value in found.items()]
    return Replay(output, statistics, _gradients(module, found, wanted, inputs), same)


def _gradients(
    module: nn.Module, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> dict[str, TensorStatistics]:
    if not wanted:
        return {}
    names = [name for name in wanted if name in found]
    torch.autograd.backward([found[name] for name in names], [wanted[name] for name in names])
    leaves = {**inputs, **{f"weight {name}": value for name, value in module.named_parameters()}}
    return {
        name: TensorStatistics.of(name, value.grad) for name, value in leaves.items() if isinstance(value.grad, Tensor)
    }


def _is_float_input(name: str, value: Tensor) -> bool:
    return name.startswith("input/") and value.is_floating_point()


def _equal(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach(), other.detach()
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.allclose(one, other, rtol=0, atol=0, equal_nan=one.is_floating_point())


def _find(description: SettingsView, target: Target) -> nn.Module:
    named, name = modules_of(target), description["module"]
    module = named.get(name)
    if module is None and isinstance(target, nn.Module) and _class_name(target) == description["class"]:
        module = target
    if module is None:
        raise ConfigError(f"There is no module {name!r} to replay with. {nearest_names(name, named)}")
    if _class_name(module) != description["class"]:
        raise ConfigError(f"{name} is a {_class_name(module)}; the recorded one was a {description['class']}.")
    return module


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}:{type(module).__qualname__}"


def _load_state(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    state = {name.removeprefix("state/"): value for name, value in tensors.items() if name.startswith("state/")}
    buffers = dict(module.named_buffers())
    for name in [name for name in state if name not in module.state_dict() and name in buffers]:
        owner, _, last = name.rpartition(".")
        module.get_submodule(owner)._buffers[last] = state.pop(name)
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"The weights in {path} do not fit the module: {error}") from error


def _read(path: Path) -> tuple[SettingsDict, dict[str, Tensor]]:
    description = read_json_object(path, "the reproduction of an anomaly", InputFileError, "Record it again.")
    try:
        tensors = load_file(path.with_name(path.name.removesuffix(".json") + ".safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputFileError(f"The .safetensors of {path} is missing or damaged. Record it again.") from error
    if description.get("format") != FORMAT:
        raise InputFileError(f"{path} is not the reproduction of an anomaly; its format is not {FORMAT!r}.")
    layouts = description.get("layouts", {}).items()
    return description, tensors | {name: _laid_out(tensors[name], axes) for name, axes in layouts}


def _axes(tensor: Tensor) -> list[int]:
    """The axes from the slowest to the fastest in memory."""
    return sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis))


def _laid_out(tensor: Tensor, axes: list[int]) -> Tensor:
    back = [axes.index(axis) for axis in range(tensor.ndim)]
    return tensor.permute(axes).contiguous().permute(back)


def _encode(value: object, key: str, tensors: dict[str, Tensor]) -> SettingsDict:
    if isinstance(value, Tensor) and not value.is_complex():
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, _PLAIN):
        return {"value": value}
    if isinstance(value, (torch.dtype, torch.device)):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    return _encode_nested(value, key, tensors)


def _encode_nested(value: object, key: str, tensors: dict[str, Tensor]) -> SettingsDict:
    if isinstance(value, (tuple, list)):
        items = [_encode(item, f"{key}/{index}", tensors) for index, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict):
        return {"dict": {str(name): _encode(item, f"{key}/{name}", tensors) for name, item in value.items()}}
    kind = type(value)
    if is_dataclass(value) and kind.__module__.startswith(_OWN):
        items = {each.name: _encode(getattr(value, each.name), f"{key}/{each.name}", tensors) for each in fields(value)}
        return {"dataclass": f"{kind.__module__}:{kind.__qualname__}", "fields": items}
    return {"unknown": f"{kind.__module__}.{kind.__qualname__}"}


def _decode(spec: SettingsView, tensors: Mapping[str, Tensor]) -> object:
    kind, content = next(iter(spec.items()))
    if kind == "dataclass":
        return _rebuilt(content)(**{name: _decode(item, tensors) for name, item in spec["fields"].items()})
    readers: dict[str, Callable[[], object]] = {
        "tensor": lambda: tensors[content],
        "value": lambda: content,
        "dtype": lambda: getattr(torch, content),
        "device": lambda: torch.device("cpu"),
        "tuple": lambda: tuple(_decode(item, tensors) for item in content),
        "list": lambda: [_decode(item, tensors) for item in content],
        "dict": lambda: {name: _decode(item, tensors) for name, item in content.items()},
    }
    if kind not in readers:
        raise ConfigError(f"An argument of the call was a {content}, which a file cannot hold; it cannot be replayed.")
    return readers[kind]()


def _rebuilt(name: str) -> type:
    module, _, own = name.partition(":")
    found = getattr(importlib.import_module(module), own, None) if module.startswith(_OWN) else None
    if not isinstance(found, type) or not is_dataclass(found):
        raise ConfigError(f"An argument of the call was a {name}, which is no dataclass of this version of muybridge.")
    return found
