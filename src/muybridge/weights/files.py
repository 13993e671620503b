"""Weight files in, flat dictionaries of tensors out, whatever their names end in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.weights.formats import FileFormat, file_format
from muybridge.weights.names import listed
from muybridge.weights.pickles import can_be_mapped, read_pickle
from muybridge.weights.precision import Precision, asked, convert_, wanted
from muybridge.weights.quantized import dequantized, read_gguf

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".gguf")
"""What names of weight files end in, for where there is nothing but a name."""
_WRAPPERS = (
    *("state_dict", "model_state_dict", "controlnet", "model", "module", "params"),
    *("ema", "model_ema", "ema_state_dict", "params_ema"),  # averaged weights, where there are no plain ones
)
_WRAPPINGS = 3  # one in another
_CUT_SHORT = "is damaged: it begins as safetensors and cannot be read to its end. Copy or download it again."


def read_weights(path: str | os.PathLike[str], precision: Precision = None) -> dict[str, Tensor]:
    """Read a weight file into a flat dictionary, on the CPU: safetensors, torch's pickles, or GGUF.

    The content says which of them it is. Entries beside the tensors (step counts and the like) are left out; wrappings
    such as `state_dict` are taken off, where averaged weights are taken only if there are no others; parts that are
    dictionaries of their own stand before their keys. Weights in 8 bits with scales are multiplied with these.

    Tensors of safetensors files that need no conversion are mapped into memory, which is filled when they are looked
    at. Converting takes no more memory than the result.

    Args:
        path: the file.
        precision: to convert weights to while they are read; by default they are as stored.

    Raises:
        CheckpointError: no such file, not a weight file, damaged, or a pickle that would run code (it is not run).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no weight file {path}.")
    found = file_format(path)
    if found is FileFormat.GGUF:
        state = read_gguf(path)
        convert_(state, wanted(state, precision))
        return state
    is_pickle = found is not FileFormat.SAFETENSORS
    mapped = not is_pickle or (precision is not None and can_be_mapped(path, found))

    def read() -> dict[str, Tensor]:
        return _flat(read_pickle(path, mapped) if is_pickle else read_safetensors(path))

    state = read()
    _require_plain(state, path)
    wishes = wanted(state, precision)
    if (numbers := dequantized(state, str(path), asked(state, precision))) is not None:
        state, wishes = numbers, {key: wish for key, wish in wishes.items() if numbers.get(key) is state[key]}
    # Files of safetensors are replaced as a whole, pickles also written over, and a mapping would be of the new one.
    convert_(state, wishes, read if mapped else None, copy=mapped and is_pickle)
    return state


def _require_plain(state: Mapping[str, Tensor], path: Path) -> None:
    if not state:
        raise CheckpointError(f"{path} holds no tensors; it is not a weight file.")
    if unusual := [key for key, value in state.items() if not _is_usual(value)]:
        raise CheckpointError(
            f"{path} holds weights that are sparse, quantized by torch or without values, and not supported: "
            f"{listed(unusual)}. Save them as plain tensors."
        )


def _is_usual(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)


def _flat(content: Mapping, depth: int = _WRAPPINGS) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS if depth else ():
        inner = content.get(wrapper)
        if isinstance(inner, Mapping) and (found := _flat(inner, depth - 1)):
            return found
    if own := _tensors(content):
        return own
    parts = {name: _tensors(part) for name, part in content.items() if isinstance(part, (Mapping, nn.ParameterDict))}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}


def _tensors(content: Mapping | nn.ParameterDict) -> dict[str, Tensor]:
    return {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}


def read_shard_index(index: Path) -> list[Path]:
    """The files that hold the weights of a model that is cut into shards.

    Raises:
        CheckpointError: no index, files outside its folder, or shards that are missing or empty.
    """
    weight_map = read_json_object(index, "an index of shards").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} is no index of shards: it has no weight_map. Get it again.")
    names = list(weight_map.values())
    if any(not isinstance(name, str) or name == ".." or set("/\\") & set(name) for name in names):
        raise CheckpointError(f"{index} names files outside its folder; it is refused.")
    shards = [index.parent / name for name in sorted(set(names))]
    if missing := [shard.name for shard in shards if not shard.is_file() or shard.stat().st_size == 0]:
        raise CheckpointError(
            f"{index.parent} is incomplete: of the shards that {index.name} names {listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing or empty. Download the folder again."
        )
    return shards


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file as it is.

    Raises:
        CheckpointError: damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} {_CUT_SHORT}") from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """What the header of a safetensors file says besides names and shapes; nothing where it is another format.

    Raises:
        CheckpointError: damaged.
    """
    if file_format(path) is not FileFormat.SAFETENSORS:
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} {_CUT_SHORT}") from error
