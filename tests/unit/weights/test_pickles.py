"""Checkpoints of trainers, whose leftovers stand for nothing, and pickles that would run something."""

from __future__ import annotations

import argparse
import functools
import io
import pickle
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from muybridge.errors import CheckpointError
from muybridge.weights.files import read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "half": torch.ones(2).half()}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Classes of a package that is installed where the checkpoint is written, and not where it is read."""
    module = types.ModuleType("some_trainer.callbacks")
    monkeypatch.setitem(sys.modules, "some_trainer", types.ModuleType("some_trainer"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    bases: dict[str, tuple[type, ...]] = {
        "Checkpoint": (),
        "Settings": (dict,),
        "Names": (list,),
        "Kind": (Enum,),
        "Values": (torch.Tensor,),
    }
    for name, own in bases.items():
        body: Any = {"ONE": 1} if Enum in own else {"__module__": module.__name__}
        made = Enum(name, body, module=module.__name__) if Enum in own else type(name, own, body)
        setattr(module, name, made)

    def gone() -> None:
        for name in ("some_trainer", module.__name__):
            monkeypatch.delitem(sys.modules, name)

    return types.SimpleNamespace(**vars(module), forget=gone)


@pytest.mark.parametrize("new_format", [True, False])
def test_what_trainers_leave_is_stood_in_for(tmp_path: Path, trainer: types.SimpleNamespace, new_format: bool) -> None:
    callback = trainer.Checkpoint()
    callback.best = tmp_path
    callback.history = deque([np.float64(0.5), trainer.Kind.ONE])
    content = {
        "state_dict": OrderedDict(WEIGHTS),
        "callbacks": {trainer.Checkpoint: {"monitor": None}, callback: [callback]},
        "hyper_parameters": trainer.Settings(lr=np.float32(1e-4), files=trainer.Names([tmp_path])),
        "arguments": argparse.Namespace(out=Path("x"), counts=Counter("ab"), by=defaultdict(list, a=[1])),
        "numbers": (np.arange(4.0), np.float64(3), np.dtype("f4"), np.random.RandomState(0), {1, 2}, 1j),
        "more": [timedelta(1), functools.partial(trainer.Checkpoint), slice(1, 2), bytearray(b"x")],
        "global_step": np.int64(3),
    }
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=new_format)
    trainer.forget()
    found = read_weights(tmp_path / "w.ckpt")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in WEIGHTS.items())


def test_weights_in_dictionaries_of_trainers(tmp_path: Path, trainer: types.SimpleNamespace) -> None:
    """The dictionary, the tensors and the embeddings in it may be of classes of their own."""
    own = trainer.Values(torch.ones(3))
    embeddings = nn.ParameterDict({"*": nn.Parameter(torch.ones(2))})
    torch.save(trainer.Settings(a=trainer.Settings(own=own), b=embeddings, c=trainer.Checkpoint()), tmp_path / "w.pt")
    trainer.forget()
    found = read_weights(tmp_path / "w.pt")
    assert {name: value.tolist() for name, value in found.items()} == {"a.own": [1, 1, 1], "b.*": [1, 1]}
    assert type(found["a.own"]) is torch.Tensor


class Marked(list):
    """A list with an attribute."""

    def __init__(self) -> None:
        super().__init__("ab")
        self.mark = 1


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    ("content", "protocol", "what"),
    [
        ({"w": torch.ones(2)}, 4, "a pickle of protocol 4"),
        ({"w": torch.ones(2), "names": Marked()}, 2, "objects of .*Marked"),
        (nn.Linear(1, 1), 2, r"a whole pickled object \(torch.nn.modules.linear.Linear\)"),
    ],
)
def test_what_the_guard_does_not_read(tmp_path: Path, content: Any, protocol: int, what: str, new_format: bool) -> None:
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=rf"is refused: it holds {what}, which torch does not read"):
        read_weights(tmp_path / "w.pt")


def test_a_module_beside_the_weights(tmp_path: Path) -> None:
    """Files of before 2020 have its source beside it, which the guard does not read."""
    content = {"w": torch.ones(2), "net": nn.Linear(1, 1)}
    torch.save(content, tmp_path / "new.pt")
    assert read_weights(tmp_path / "new.pt").keys() == {"w"}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"it holds a whole pickled object .*Linear"):
        read_weights(tmp_path / "old.pt")


def test_what_others_allow_stays_allowed(tmp_path: Path, trainer: types.SimpleNamespace) -> None:
    torch.save({"w": torch.ones(2), "n": nn.ParameterDict(), "c": trainer.Checkpoint()}, tmp_path / "w.pt")
    with torch.serialization.safe_globals([trainer.Checkpoint, nn.ParameterDict]):
        before = set(torch.serialization.get_safe_globals())
        assert read_weights(tmp_path / "w.pt").keys() == {"w"}
        assert set(torch.serialization.get_safe_globals()) == before


def test_parameters_and_views_beside_leftovers(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    tiny = torch.ones(2).to(torch.uint16)
    layer.weight.note = "mine"  # type: ignore[assignment]  # an attribute of Python
    state = {
        **dict(layer.named_parameters()),
        "view": torch.arange(10.0)[2:8:2],
        "f8": torch.ones(2).to(torch.float8_e5m2),
        "u16": tiny,
    }
    torch.save({"model": state, "args": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    assert torch.equal(found["weight"], layer.weight)
    assert found["view"].tolist() == [2, 4, 6]
    assert torch.equal(found["u16"], tiny)
    assert (found["f8"].dtype, found["f8"].float().tolist()) == (torch.float8_e5m2, [1, 1])


class Calls:
    """Pickled as a call of something."""

    def __init__(self, function: Callable[..., Any] | str, *arguments: Any) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what


def marked(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


def dangerous(mark: Path) -> dict[str, Any]:
    import os
    import runpy
    import subprocess

    return {
        "posix.system": Calls(os.system, f"touch {mark}"),
        "builtins.eval": Calls(eval, marked(mark)),
        "builtins.exec": Calls(exec, marked(mark)),
        "builtins.getattr": Calls(getattr, "", "upper"),
        "subprocess.Popen": Calls(subprocess.Popen, ["touch", str(mark)]),
        "runpy._run_code": Calls(runpy._run_code, marked(mark), {}),  # type: ignore[attr-defined]
        "torch.serialization.load": Calls(torch.load, str(mark)),
        "pathlib.Path.touch": Calls(Path.touch, mark),
    }


@pytest.mark.parametrize("name", sorted(dangerous(Path("x"))))
@pytest.mark.parametrize("writer", ["new", "legacy", "plain"])
def test_what_would_run_is_refused_and_not_run(tmp_path: Path, name: str, writer: str) -> None:
    content = {"w": torch.ones(2), "bad": dangerous(tmp_path / "mark")[name]}
    if writer == "plain":
        (tmp_path / "w.ckpt").write_bytes(pickle.dumps({"bad": content["bad"]}))
    else:
        torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=writer == "new")
    with pytest.raises(CheckpointError, match=r"was refused as unsafe: .* would call .*Nothing in it was run"):
        read_weights(tmp_path / "w.ckpt")
    assert not (tmp_path / "mark").exists()


def opcodes(body: bytes) -> bytes:
    """A torch file of before 2020 with a pickle written by hand."""
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue().replace(b"\x80\x02}q\x00.", b"\x80\x02" + body + b".", 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"cevil\nrun\n)R", "unsafe: .* would call evil.run"),
        (b"(i__builtin__\neval\n", "unsafe: .* would call builtins.eval"),
        (b"(cnt\nsystem\nVx\no", "unsafe: .* would call nt.system"),
        (b"c\x1b[31mos\nsystem\n)R", r"unsafe: .* would call \?\[31mos.system"),
        # Changing what is in the list of what may be called, or calling what a call gave.
        (b"cevil\nThing\nccollections\nOrderedDict\n}X\x01\0\0\0aK\x01sb", "is damaged"),
        (b"cevil\nThing\nctorch._utils\n_rebuild_tensor_v2\n}X\x01\0\0\0aK\x01sb", "is damaged"),
        (b"cevil\nThing\n)R)R", "is damaged"),
        (b"cevil\nThing\n)\x81ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNN)tR", "unsafe: .* call os.system"),
        (b"cevil\nThing\n\x82\x01", "is damaged"),
        (b"cevil\nThing\n]r\xff\xff\xff\xff\xc9", "is damaged"),
        (b"cevil\nThing\n)\x81", r"holds a whole pickled object \(evil.Thing\)"),
        (b"cevil\nThing\n]", "holds a list"),
    ],
)
def test_pickles_by_hand(tmp_path: Path, body: bytes, message: str) -> None:
    (tmp_path / "w.ckpt").write_bytes(opcodes(body))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(tmp_path / "w.ckpt")
    assert "\x1b" not in str(caught.value)
    assert "evil" not in sys.modules
