"""Putting weights into models with nothing missing, nothing left over, and nothing that is not a number."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from torch import Tensor, nn

from muybridge.errors import CheckpointError
from muybridge.files.json_settings import read_json_object
from muybridge.types import SettingsDict, SettingsView
from muybridge.weights.files import read_weights
from muybridge.weights.folder_files import FolderFiles, find_folder_files
from muybridge.weights.names import listed

ModelT = TypeVar("ModelT", bound=nn.Module)
_PLAIN_OPTIONS = {"dtype", "torch_dtype", "variant", "subfolder", "use_safetensors", "low_cpu_mem_usage"}
"""What `load_folder` acts on itself."""
_MISFITS = "has shapes that do not fit:"
_WITHOUT_INFINITY = (torch.float4_e2m1fn_x2,)
"""Formats of 4 bits, which have no value that is not a number, and with which torch cannot compute."""
_PLACE: ContextVar[torch.device | None] = ContextVar("place", default=None)


@contextmanager
def parts_read_to(device: torch.device | None) -> Iterator[None]:
    """Networks that are loaded here go to a device one by one, so that the host never holds more than one of them.

    None leaves them on the host.
    """
    token = _PLACE.set(device)
    try:
        yield
    finally:
        _PLACE.reset(token)


def in_its_place(model: ModelT) -> ModelT:
    """A network that has just been read, where `parts_read_to` wants it."""
    place = _PLACE.get()
    if place is not None and not any(each.is_meta for each in (*model.parameters(), *model.buffers())):
        model.to(place)
    return model


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
    _require_numbers(own, state, source)
    require_finite(state.items(), source)
    model.load_state_dict(dict(state), strict=True, assign=assign)
    in_its_place(model)


def _require_numbers(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    whole = [k for k, v in state.items() if k in own and own[k].is_floating_point() and not v.is_floating_point()]
    _report(source, "is quantized without the scales that say what it means, in whole numbers:", whole)


def _misfit(key: str, found: Sequence[int], own: Sequence[int]) -> str:
    return f"{key} {tuple(found)} instead of {tuple(own)}"


@dataclass(frozen=True)
class Whole:
    """A model that the one to load is a part of.

    Attributes:
        class_name: of it.
        other_keys: what the keys of its other parts begin with.
    """

    class_name: str
    other_keys: tuple[str, ...]


class _Misfits(TypedDict):
    """Keys of a file or of a model without the other, and those of two shapes, as libraries say it."""

    mismatched_keys: Collection[tuple[str, Sequence[int], Sequence[int]]]
    missing_keys: Collection[str]
    unexpected_keys: Collection[str]


def load_folder(
    loader: Callable[..., ModelT],
    folder: str | os.PathLike[str] | None,
    class_name: str,
    options: SettingsDict,
    whole: Whole | None = None,
) -> ModelT:
    """Call a `from_pretrained` of diffusers or transformers so that partial or damaged weights are errors.

    Where a local folder holds nothing but the variant `fp16`, as some published ones do, that is loaded. Of a local
    folder and in a precision asked for, the weights are read here, tensor by tensor: the libraries keep the file in
    memory until all of it is converted.

    Args:
        loader: the `from_pretrained` to call; must know `output_loading_info`.
        folder: a local folder, or a hub id.
        class_name: of the model, for messages and to check the folder's own.
        options: passed on.
        whole: what the folder may hold instead, of which the model is a part.

    Raises:
        CheckpointError: no such folder, another class, weights missing, truncated, of other shapes, or not finite.
    """
    if folder is None:
        raise CheckpointError(f"Name the folder of the {class_name} to load.")
    path = Path(folder) / (options.get("subfolder") or "")
    source, files, plain = str(path), None, False
    if path.is_dir():
        settings = _check_class(path, class_name, whole)
        try:
            files = find_folder_files(path, options.get("variant"))
        except CheckpointError as error:
            raise CheckpointError(f"{class_name} cannot be loaded from {source}: {error}") from error
        plain = options.keys() <= _PLAIN_OPTIONS and "quantization_config" not in settings
        options = {**files.options, **options}
    dtype = options.get("dtype") or options.get("torch_dtype")
    try:
        if files is not None and plain and isinstance(dtype, torch.dtype):
            model, info = _read_whole(loader, path, files, dtype, () if whole is None else whole.other_keys)
        else:
            # So that the libraries name wrong shapes like missing keys, instead of stopping in words of their own.
            options = {"ignore_mismatched_sizes": True, **options}
            model, info = cast("tuple[ModelT, _Misfits]", loader(folder, output_loading_info=True, **options))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{class_name} cannot be loaded from {source}: {_reason(files)}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{class_name} cannot be loaded from {source}: {error}") from error
    wrong = [_misfit(key, found, own) for key, found, own in sorted(info["mismatched_keys"])]
    _report(source, _MISFITS, wrong)
    _report(source, "has no weights for", sorted(map(str, info["missing_keys"])))
    # Older files of transformers hold the positions 0, 1, 2... as if they were weights.
    unexpected = [key for key in map(str, info["unexpected_keys"]) if not key.endswith("position_ids")]
    foreign = [key for key in unexpected if whole is None or not key.startswith(whole.other_keys)]
    _report(source, "has keys that the model does not have:", sorted(foreign))
    require_finite(model.named_parameters(), source)
    return in_its_place(model)


def _read_whole(
    loader: Callable[..., ModelT], folder: Path, files: FolderFiles, dtype: torch.dtype, left_out: tuple[str, ...]
) -> tuple[ModelT, _Misfits]:
    """The model whose `from_pretrained` is given, and what of the folder's weights did not fit, as libraries say it."""

    def precision(state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
        dtypes = {key: torch.float32 if precise & set(key.split(".")) else dtype for key in state}
        return {key: wish for key, wish in dtypes.items() if not key.startswith(left_out)}

    of_library = cast("Any", loader)
    cls = of_library.__self__
    if misnamed := files.misnamed():
        raise CheckpointError(misnamed)
    precise = _kept_precise(cls, dtype)
    every = (item for file in files.files for item in read_weights(file, precision).items())
    state = {key: value for key, value in every if not key.startswith(left_out)}
    if hasattr(cls, "config_class"):  # of transformers
        config = cls.config_class.from_pretrained(folder)
        model, info = of_library(
            None, config=config, state_dict=state, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
        )
        model.name_or_path = model.config.name_or_path = str(folder)
        return model, info
    settings = cls.load_config(folder)
    with init_empty_weights():
        model = cls.from_config(settings)
    model._fix_state_dict_keys_on_load(state)  # names of before 2023
    own = model.state_dict()
    wrong = [(key, value.shape, own[key].shape) for key, value in state.items() if key in own]
    info: _Misfits = {
        "mismatched_keys": [each for each in wrong if each[1] != each[2]],
        "missing_keys": own.keys() - state.keys(),
        "unexpected_keys": state.keys() - own.keys(),
    }
    if not any(info.values()):
        _require_numbers(own, state, str(folder))
        model.load_state_dict(state, strict=True, assign=True)
        model.register_to_config(_name_or_path=str(folder))
    return model.eval(), info


def _kept_precise(cls: object, dtype: torch.dtype) -> set[str]:
    """Names of the layers that a library keeps in float32 beside half precision."""
    names: set[str] = set()
    if dtype is torch.float16:
        names |= set(getattr(cls, "_keep_in_fp32_modules", None) or ())
    if dtype in (torch.float16, torch.bfloat16):
        names |= set(getattr(cls, "_keep_in_fp32_modules_strict", None) or ())
    return names


def _reason(files: FolderFiles | None) -> str:
    if files is None:
        return "there is no such folder here, and the hub did not give it. Check the name."
    return files.problem() or (
        "its config.json has settings that are not known, or that do not go together. Get the folder again, or a newer "
        "version of the libraries that it was saved with."
    )


def _check_class(folder: Path, class_name: str, whole: Whole | None) -> SettingsDict:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; it is not a folder with a {class_name}.")
    config = read_json_object(path, f"the settings of a {class_name}")
    found = named_class(config)
    if found not in (None, class_name, whole and whole.class_name):
        raise CheckpointError(f"{folder} holds a {found}, not a {class_name}.")
    return config


def named_class(config: SettingsView) -> str | None:
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
    if tensor.numel() == 0 or tensor.is_meta:
        return True
    # torch cannot test 8-bit floats themselves.
    tensor = tensor if tensor.element_size() > 1 else tensor.float()
    if tensor.is_complex():
        return bool(torch.isfinite(tensor).all())
    # The ends are numbers only where all are, and looking for them makes no masks as large as the tensor.
    return all(math.isfinite(end.item()) for end in tensor.detach().aminmax())


def _report(source: str, problem: str, keys: list[str]) -> None:
    if keys:
        raise CheckpointError(f"{source} {problem} {listed(keys)}.")
