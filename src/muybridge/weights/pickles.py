"""Torch files, which are pickles, read without running anything that they name.

What torch's own guard knows it reads. Checkpoints of trainers hold more: callbacks, settings, numbers of numpy. For
those every name that weights do not need becomes an inert stand-in, nothing is imported, and a name that is called and
is no class makes the file unsafe.
"""

from __future__ import annotations

import pickle
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch import _utils as rebuilding

from muybridge.errors import CheckpointError
from muybridge.weights.formats import FileFormat, describe_unreadable, file_format

_LONGEST_NAME = 80


def _without_attributes(data: Tensor, *_: Any) -> Tensor:
    """A parameter that had attributes of Python; they may be anything, and nothing here asks for them."""
    return data


_CALLED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": rebuilding._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuilding._rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": rebuilding._rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": rebuilding._rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _without_attributes,
    "torch.Size": tuple,
}
"""All that is ever called."""
_TYPED = "torch._tensor._rebuild_from_type_v2"
_UNTYPED_STORAGE = "torch.storage.UntypedStorage"
_HARMLESS = {
    *(f"builtins.{name}" for name in ("set", "frozenset", "bytearray", "complex", "slice", "range", "object")),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool", "bytes")),
    *(f"collections.{name}" for name in ("Counter", "defaultdict", "deque")),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(
        f"pathlib{module}.{kind}"
        for module in ("", "._local")
        for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Tuple", "Union")),
    *("argparse.Namespace", "types.SimpleNamespace", "functools.partial", "uuid.UUID", "decimal.Decimal"),
    *("copyreg._reconstructor", "copyreg.__newobj__", "_codecs.encode", "logging.getLogger", "fractions.Fraction"),
    *("torch.device", "torch.serialization._get_layout"),
    *(f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("_reconstruct", "scalar")),
    *(f"{core}.numeric._frombuffer" for core in ("numpy.core", "numpy._core")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("randomstate", "generator", "bit_generator")),
}
"""Names with a small letter, or of Python's own library, that trainers leave behind; also these are never called."""


def read_pickle(path: Path) -> Mapping:
    """The dictionary of a torch file, as it is; nothing in it can run.

    Raises:
        CheckpointError: not a torch file, damaged, unsafe, or no dictionary.
    """
    found = file_format(path)
    if found is FileFormat.ZIP:
        _check_archive(path)
    elif found is FileFormat.PICKLE:
        _refuse_plain_pickle(path)
    elif found is not FileFormat.TORCH_LEGACY:
        raise CheckpointError(describe_unreadable(path, found))
    content = _read(path)
    if isinstance(content, _StandIn) and not content:
        raise CheckpointError(
            f"{path} holds a whole pickled object ({content.origin}) and is refused: reading one would run its code. "
            "Use a file of its weights, best a .safetensors version of it."
        )
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(_damaged(path)) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path} is a TorchScript program, not weights, and is not run. Use the file of weights that it was made "
            "from."
        )
    if "data.pkl" not in names:
        raise CheckpointError(f"{path} is a zip archive that torch did not write. Unpack it and name a file of it.")


def _refuse_plain_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            _InertUnpickler(file).load()
    except _UnsafeNameError as error:
        raise CheckpointError(_unsafe(path, str(error))) from error
    except Exception as error:
        raise CheckpointError(_damaged(path)) from error
    raise CheckpointError(
        f"{path} is refused: a plain pickle, not what torch.save writes. Save its weights with torch.save or as "
        ".safetensors."
    )


def _read(path: Path) -> Any:
    # Through an open file, because torch goes by the ending of a path.
    with warnings.catch_warnings(action="ignore"):
        try:
            # The first programs for embeddings saved these, which are dictionaries of tensors.
            with path.open("rb") as file, torch.serialization.safe_globals([nn.ParameterDict]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            pass  # names that torch's guard does not know
        except Exception as error:  # a damaged pickle can make the reader fail in any way at all
            raise CheckpointError(_damaged(path)) from error
        inert = SimpleNamespace(__name__="inert", Unpickler=_InertUnpickler, load=_load_inert)
        try:
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=False, pickle_module=inert)
        except _UnsafeNameError as error:
            raise CheckpointError(_unsafe(path, str(error))) from error
        except Exception as error:
            raise CheckpointError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return f"{path} is damaged: it begins as a torch file and cannot be read to its end. Copy or download it again."


def _unsafe(path: Path, name: str) -> str:
    return (
        f"{path} was refused as unsafe: opening it as its maker meant would call {name}. Nothing in it was run. Use a "
        ".safetensors version of it."
    )


class _UnsafeNameError(Exception):
    """A name in a pickle that weights have no use for, made fit to be shown."""

    def __init__(self, name: str) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME]))


class _StandIn(dict):
    """In place of an object: takes what a pickle puts into one, and does nothing."""

    origin = ""
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]  # callbacks are keys
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def append(self, _item: object) -> None:
        """Nothing: a list in name only."""

    extend = add = append


def _is_class_name(name: str) -> bool:
    return name.rpartition(".")[2].lstrip("_")[:1].isupper()


class _InertUnpickler(pickle._Unpickler):  # the one in Python, which a wrong index costs no memory
    """Python's unpickler, in which every opcode that could reach outside is replaced."""

    stack: list[Any]
    append: Callable[[Any], None]

    def find_class(self, module: str, name: str) -> Any:
        # Protocol 2 has the names of Python 2.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full in _CALLED:
            return _CALLED[full]
        if full == _UNTYPED_STORAGE:
            return torch.UntypedStorage
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if full.partition(".")[0] in sys.stdlib_module_names and full not in _HARMLESS:
            raise _UnsafeNameError(full)
        return type("StandIn", (_StandIn,), {"origin": full})

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension {code}")

    def _call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, type) and issubclass(function, _StandIn):
            if function.origin == _TYPED:  # around another of the functions above
                return self._call(arguments[0], arguments[2])
            if function.origin not in _HARMLESS and not _is_class_name(function.origin):
                raise _UnsafeNameError(function.origin)
            return function()
        if not any(function is known for known in _CALLED.values()):
            raise pickle.UnpicklingError("calls what it made itself")
        return function(*arguments)

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._call(klass, args))

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # its keyword arguments
        self._load_reduce()

    def _load_build(self) -> None:
        self.stack.pop()
        # What stands in for an object has no state, and the order of an OrderedDict is its items'.
        if not isinstance(self.stack[-1], (_StandIn, OrderedDict)):
            raise pickle.UnpicklingError("changes what it did not make")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_reduce,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.BUILD[0]: _load_build,
    }


def _load_inert(file: Any, **options: Any) -> Any:
    return _InertUnpickler(file, **options).load()
