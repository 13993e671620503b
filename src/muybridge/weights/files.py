"""Weight files in, flat dictionaries of tensors out. Pickles are read without running code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from muybridge.errors import CheckpointError

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")
_WRAPPERS = ("state_dict", "controlnet", "model", "module")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a `.safetensors` file or a torch pickle into a flat dictionary, on the CPU.

    Entries beside the tensors (step counts and the like) are left out; one level of wrapping is taken off.

    Raises:
        CheckpointError: no such file, not a weight file, truncated, or a pickle that would run code (it is not run).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no weight file {path}.")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; copy or download it again.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping):
            content = inner
            break
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; it is not a weight file.")
    return tensors


def read_folder_weights(folder: str | os.PathLike[str], name: str = "diffusion_pytorch_model") -> dict[str, Tensor]:
    """Read the weights of a model folder, in one file or in the shards that its index names.

    Args:
        folder: of one model.
        name: of the weight file without its suffix; `.safetensors` is preferred to `.bin`.

    Raises:
        CheckpointError: neither file nor index, an index that names other than files of the folder, or a file that
            cannot be read.
    """
    for suffix in (".safetensors", ".bin"):
        index, single = (Path(folder) / f"{name}{suffix}{more}" for more in (".index.json", ""))
        if index.is_file():
            return _read_shards(index)
        if single.is_file():
            return read_weights(single)
    raise CheckpointError(f"{folder} has no weights: neither {name}.safetensors nor {name}.bin, nor shards of them.")


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{index} is not an index of shards ({error}). Get it again.") from error
    if any(not isinstance(shard, str) or Path(shard).name != shard for shard in shards):
        raise CheckpointError(f"{index} names files outside its folder; it is refused.")
    state: dict[str, Tensor] = {}
    for shard in shards:
        state |= read_weights(index.parent / shard)
    return state


def _read_safetensors(path: Path) -> Mapping:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}); it is truncated or something else. Get it again."
        ) from error


def read_pickle(path: Path) -> Mapping:
    """The dictionary of a torch file, as it is; nothing in it can run.

    Raises:
        CheckpointError: damaged, unsafe, or no dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it is a damaged pickle, or one that would run code when opened. Nothing in it was "
            f"run. Use a .safetensors version of it. ({str(error).splitlines()[0][:200]})"
        ) from error
    except Exception as error:  # a damaged pickle can make the reader fail in any way at all
        raise CheckpointError(f"{path} cannot be read as a torch file ({error}). Get it again.") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content
