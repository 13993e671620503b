"""Putting weights into models with nothing missing, nothing left over, and nothing that is not a number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.weights.folder_files import FolderFiles, find_folder_files
from muybridge.weights.names import listed

ModelT = TypeVar("ModelT", bound=nn.Module)
_MISFITS = "has shapes that do not fit:"
_WITHOUT_INFINITY = (torch.float4_e2m1fn_x2,)
"""Formats of 4 bits, which have no value that is not a number, and with which torch cannot compute."""


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str, assign: bool = False) -> None:
    """Load every key of `state` into `model`, converting to the model's dtype.

    With `assign` the tensors themselves become the weights, as a model made on the meta device needs.

    Raises:
        CheckpointError: keys missing or left over, shapes that do not fit, whole numbers in place of weights, or values
            that are not finite; the message names the first of them.
    """
    own = model.state_dict()
    _report(source, "has no weights for", sorted(own.keys() - state.keys()))
    _report(source, "has keys that the model does not have:", sorted(state.keys() - own.keys()))
    wrong = [_misfit(k, v.shape, own[k].shape) for k, v in state.items() if v.shape != own[k].shape]
    _report(source, _MISFITS, wrong)
    whole = [k for k, v in state.items() if own[k].is_floating_point() and not v.is_floating_point()]
    _report(source, "is quantized without the scales that say what it means, in whole numbers:", whole)
    require_finite(state.items(), source)
    model.load_state_dict(dict(state), strict=True, assign=assign)


def _misfit(key: str, found: Sequence[int], own: Sequence[int]) -> str:
    return f"{key} {tuple(found)} instead of {tuple(own)}"


def load_folder(
    loader: Callable[..., Any], folder: str | os.PathLike[str] | None, class_name: str, options: dict[str, Any]
) -> Any:
    """Call a `from_pretrained` of diffusers or transformers so that partial or damaged weights are errors.

    Where a local folder holds nothing but the variant `fp16`, as some published ones do, that is loaded.

    Args:
        loader: the `from_pretrained` to call; must know `output_loading_info`.
        folder: a local folder, or a hub id.
        class_name: of the model, for messages and to check the folder's own.
        options: passed on.

    Raises:
        CheckpointError: no such folder, another class, weights missing, truncated, of other shapes, or not finite.
    """
    if folder is None:
        raise CheckpointError(f"Name the folder of the {class_name} to load.")
    path = Path(folder) / (options.get("subfolder") or "")
    source, files = str(path), None
    if path.is_dir():
        _check_class(path, class_name)
        try:
            files = find_folder_files(path, options.get("variant"))
        except CheckpointError as error:
            raise CheckpointError(f"{class_name} cannot be loaded from {source}: {error}") from error
        options = {**files.options, **options}
    # So that the libraries name wrong shapes like missing keys, instead of stopping in words of their own.
    options = {"ignore_mismatched_sizes": True, **options}
    try:
        model, info = loader(folder, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{class_name} cannot be loaded from {source}: {_reason(files)}") from error
    wrong = [_misfit(key, found, own) for key, found, own in sorted(info["mismatched_keys"])]
    _report(source, _MISFITS, wrong)
    _report(source, "has no weights for", sorted(map(str, info["missing_keys"])))
    # Older files of transformers hold the positions 0, 1, 2... as if they were weights.
    unexpected = [key for key in map(str, info["unexpected_keys"]) if not key.endswith("position_ids")]
    _report(source, "has keys that the model does not have:", sorted(unexpected))
    require_finite(model.named_parameters(), source)
    return model


def _reason(files: FolderFiles | None) -> str:
    if files is None:
        return "there is no such folder here, and the hub did not give it. Check the name."
    return files.problem() or (
        "its config.json has settings that are not known, or that do not go together. Get the folder again, or a newer "
        "version of the libraries that it was saved with."
    )


def _check_class(folder: Path, class_name: str) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; it is not a folder with a {class_name}.")
    config = read_json_object(path, f"the settings of a {class_name}")
    found = named_class(config)
    if found is not None and found != class_name:
        raise CheckpointError(f"{folder} holds a {found}, not a {class_name}.")


def named_class(config: Mapping[str, Any]) -> str | None:
    """The class that the settings of a part name, as diffusers or transformers write it; None where they name none."""
    for key in ("_class_name", "tokenizer_class", "architectures"):
        named = config.get(key)
        first = named[0] if isinstance(named, list) and named else named
        if isinstance(first, str):
            return first
    return None


def require_finite(tensors: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Refuse NaN and infinite weights.

    Raises:
        CheckpointError: names the first such tensors.
    """
    bad = [name for name, tensor in tensors if not is_finite(tensor)]
    _report(source, "has NaN or infinite values in", bad)


def is_finite(tensor: Tensor) -> bool:
    """Whether every value is a number."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.dtype in _WITHOUT_INFINITY:
        return True
    # torch cannot test 8-bit floats themselves.
    return bool(torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float()).all())


def _report(source: str, problem: str, keys: list[str]) -> None:
    if keys:
        raise CheckpointError(f"{source} {problem} {listed(keys)}.")
