"""Torch files, which are pickles, read with `weights_only=True` alone: nothing that they name is imported or run.

Checkpoints of trainers hold more than torch's guard knows: callbacks, settings, numbers of numpy. What a file names and
does with these names is found out first, opcode by opcode. Names that weights have no use for make the file unsafe; for
the others the guard is given inert stand-ins.
"""

from __future__ import annotations

import pickletools
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

import torch
from torch import Tensor, nn

from muybridge.errors import CheckpointError
from muybridge.weights.formats import FileFormat, describe_unreadable, file_format

_LEGACY_PICKLES = 5  # one after the other: magic number, version, system, content, keys of the storages
_ENDINGS_OF_OTHERS = (".safetensors",)
_NOT_PLAIN = ({"APPEND", "BUILD"}, {"APPEND", "SETITEM"}, {"SETITEM", "BUILD_TUPLE"})
_TYPED = "torch._tensor._rebuild_from_type_v2"
_REBUILDING = {
    *(f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3", "sparse_tensor", "qtensor")),
    *(f"torch._utils._rebuild_{kind}" for kind in ("parameter", "parameter_with_state", "nested_tensor")),
    *("torch._utils._rebuild_meta_tensor_no_storage", _TYPED),
}
"""What the guard calls. Nothing stands in for these: a tensor would be lost without a word."""
_HARMLESS = {
    *(f"builtins.{name}" for name in ("set", "frozenset", "bytearray", "complex", "slice", "range", "object")),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool", "bytes")),
    *(f"collections.{name}" for name in ("Counter", "OrderedDict", "defaultdict", "deque")),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"pathlib.{kind}Path" for kind in ("", "Posix", "Windows", "Pure", "PurePosix", "PureWindows")),
    *(f"pathlib._local.{kind}Path" for kind in ("", "Posix", "Windows", "Pure", "PurePosix", "PureWindows")),
    *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Tuple", "Union")),
    *("argparse.Namespace", "types.SimpleNamespace", "functools.partial", "uuid.UUID", "decimal.Decimal"),
    *("copyreg._reconstructor", "copyreg.__newobj__", "_codecs.encode", "logging.getLogger", "fractions.Fraction"),
    *(f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("_reconstruct", "scalar")),
    *(f"{core}.numeric._frombuffer" for core in ("numpy.core", "numpy._core")),
    *("numpy.dtype", "numpy.ndarray", "torch.device", "torch.serialization._get_layout"),
    *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("randomstate", "generator", "bit_generator")),
}
"""Names with a small letter, or of Python's own library, that trainers leave behind."""


def can_be_mapped(path: Path, found: FileFormat) -> bool:
    """Whether `read_pickle` can map a file into memory; torch's own files of today are such, damaged ones are not."""
    # torch goes by the ending of a path, and maps nothing that it is not given the path of.
    if found is not FileFormat.ZIP or path.suffix in _ENDINGS_OF_OTHERS:
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_pickle(path: Path, mapped: bool = False) -> Mapping:
    """The dictionary of a torch file, as it is; nothing in it can run.

    Args:
        path: the file.
        mapped: whether its tensors are the file itself, mapped into memory; only where `can_be_mapped` says so.

    Raises:
        CheckpointError: not a torch file, damaged, unsafe, or no dictionary.
    """
    found = file_format(path)
    if found not in (FileFormat.ZIP, FileFormat.TORCH_LEGACY, FileFormat.PICKLE):
        raise CheckpointError(describe_unreadable(path, found))
    try:
        content = _read(path, found, mapped)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can make the reader fail in any way at all
        raise CheckpointError(
            f"{path} is damaged: it begins as a torch file and cannot be read to its end (unless it holds what torch "
            "does not read with weights_only=True). Copy or download it again, or use a .safetensors version of it."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def _read(path: Path, found: FileFormat, mapped: bool) -> object:
    survey = _survey(path, found)
    if unsafe := [name.shown for name in survey.names.values() if name.is_unsafe]:
        raise CheckpointError(
            f"{path} was refused as unsafe: opening it as its maker meant would call {unsafe[0]}. Nothing in it was "
            "run. Use a .safetensors version of it."
        )
    if found is FileFormat.PICKLE:
        raise CheckpointError(
            f"{path} is refused: a plain pickle, not what torch.save writes. Save its weights with torch.save or as "
            ".safetensors."
        )
    content = None
    objects = [f"objects of {name.shown}" for name in survey.names.values() if name.is_unreadable]
    unreadable = [*survey.unreadable, *objects]
    if not unreadable:
        allowed = torch.serialization.safe_globals(survey.stand_ins())
        # Through an open file, because torch goes by the ending of a path.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"), allowed:
            content = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    if isinstance(content, _StandIn):
        unreadable.append(f"a whole pickled object ({type(content).__name__})")
    if unreadable:
        raise CheckpointError(
            f"{path} is refused: it holds {unreadable[0]}, which torch does not read with weights_only=True. "
            "Use a file of its weights alone, best a .safetensors version of it."
        )
    return content


def _survey(path: Path, found: FileFormat) -> _Survey:
    survey = _Survey()
    if found is FileFormat.ZIP:
        with zipfile.ZipFile(path) as archive, archive.open(_content_of(path, archive)) as file:
            survey.read(file)
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES if found is FileFormat.TORCH_LEGACY else 1):
                survey.read(file)
    return survey


def _content_of(path: Path, archive: zipfile.ZipFile) -> str:
    members = {name.rpartition("/")[2]: name for name in archive.namelist()}
    if "constants.pkl" in members:
        raise CheckpointError(
            f"{path} is a TorchScript program, not weights, and is not run. Use the file of weights that it was made "
            "from."
        )
    if "data.pkl" not in members:
        raise CheckpointError(f"{path} is a zip archive that torch did not write. Unpack it and name a file of it.")
    return members["data.pkl"]


class _StandIn:
    """In place of an object: takes what a pickle puts into one, and does nothing."""

    def __new__(cls, *_: object) -> Self:
        return object.__new__(cls)

    def __setstate__(self, _: object) -> None: ...


class _Name:
    """A name in a pickle, and in the survey also what is made by calling it."""

    def __init__(self, full: str) -> None:
        self.full = full
        self.shown = "".join(c if c.isprintable() else "?" for c in full[:80])
        # CALL, TENSOR (a class of them), and how it is filled: APPEND, SETITEM, BUILD (also _TUPLE, with one)
        self.uses: set[str] = set()

    @property
    def is_unsafe(self) -> bool:
        called = "CALL" in self.uses and not self.full.rpartition(".")[2].lstrip("_")[:1].isupper()  # and no class
        of_python = self.full.partition(".")[0] in sys.stdlib_module_names
        return self.full not in _HARMLESS | _REBUILDING and (called or of_python)

    @property
    def is_unreadable(self) -> bool:  # for the guard, which fills plain lists and dictionaries only
        return any(both <= self.uses for both in _NOT_PLAIN)

    def stand_in(self) -> type:
        if self.full == "torch.nn.modules.container.ParameterDict":  # of tensors; programs for embeddings saved these
            return nn.ParameterDict
        if "TENSOR" in self.uses:
            return Tensor  # the same values, without what the class adds
        plain = OrderedDict if "SETITEM" in self.uses else list if "APPEND" in self.uses else None
        return type(self.shown, (_StandIn,), {"__new__": lambda *_: plain()} if plain else {})


class _Survey:
    """What pickles name, found by going through their opcodes without doing what these say."""

    def __init__(self) -> None:
        self.names: dict[str, _Name] = {}
        self.unreadable: list[str] = []  # what the guard cannot be made to read

    def stand_ins(self) -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
        """Pairs for the guard, which prefers what it knows itself to them."""
        registered = torch.serialization.get_safe_globals()  # by other libraries
        known = {one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in registered}
        return [(self.names[name].stand_in(), name) for name in self.names.keys() - known - _REBUILDING]

    def read(self, file: IO[bytes]) -> None:
        """Go through one pickle; the file is then behind it."""
        stack: list[object] = []
        memo: dict[object, object] = {}
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.proto > 2:  # the guard's
                self.unreadable.append(f"a pickle of protocol {opcode.proto}")
            if opcode.name.endswith(("PUT", "MEMOIZE")):
                memo[len(memo) if argument is None else argument] = stack[-1]
            elif opcode.name.endswith("GET"):
                stack.append(memo[argument])
            else:
                taken = _take(stack, opcode.stack_before)
                stack += [self._result(opcode.name, argument, taken)] * len(opcode.stack_after)

    def _result(self, opcode: str, argument: Any, taken: list[Any]) -> object:
        result = argument  # among others strings, which names can be made of
        match opcode.removesuffix("S"):
            case "MARK":
                result = pickletools.markobject
            case "GLOBAL" | "STACK_GLOBAL":
                result = self._name(argument or " ".join(taken))
            case "INST":
                result = self._call(self._name(argument))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX" | "OBJ":
                result = self._call(*taken[:2])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                result = tuple(taken)
            case "APPEND" | "SETITEM" | "BUILD" as way if isinstance(result := taken[0], _Name):
                result.uses |= {way, f"{way}_TUPLE"} if isinstance(taken[-1], tuple) else {way}
            case "BINPERSID" if isinstance(taken[0], tuple) and taken[0][0] == "module":  # with its source, until 2020
                self.unreadable.append(f"a whole pickled object ({taken[0][1].shown})")
        return result

    def _name(self, module_and_name: str) -> _Name:
        module, _, name = module_and_name.partition(" ")
        # Protocol 2 has the names of Python 2.
        full = ".".join(NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))
        return self.names.setdefault(full, _Name(full))

    def _call(self, function: object, arguments: Any = ()) -> object:
        if isinstance(function, _Name):
            function.uses.add("CALL")
            if function.full == _TYPED:  # calls another of the names
                if isinstance(arguments[1], _Name):
                    arguments[1].uses.add("TENSOR")
                return self._call(arguments[0], arguments[2])
        return function


def _take(stack: list[object], before: list[pickletools.StackObject]) -> list[object]:
    """Take from a stack what an opcode takes: so many, or all above the last mark and some below it."""
    first = len(stack) - len(before)
    if pickletools.markobject in before:
        mark = next(i for i in reversed(range(len(stack))) if stack[i] is pickletools.markobject)
        first = mark - before.index(pickletools.markobject)
        del stack[mark]
    taken = stack[first:]
    del stack[first:]
    return taken
