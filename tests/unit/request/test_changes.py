"""Any value of a request, set by where it is."""

from __future__ import annotations

from typing import Any

import pytest

from muybridge.errors import ConfigError
from muybridge.request import GenerateRequest
from muybridge.request.changes import changed


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("sampling.eta=0.5", ("sampling", "eta"), 0.5),
        ("sampling.windows.size=8", ("sampling", "windows", "size"), 8),
        ("motion.strength=[1, 0.5]", ("motion", "strength"), [1, 0.5]),
        ("model.loras={a.safetensors: 0.5}", ("model", "loras"), {"a.safetensors": 0.5}),
        ("prompt=a blue circle", ("prompt",), "a blue circle"),
        ("prompt.8=b", ("prompt", 8), "b"),
    ],
)
def test_values_are_set(change: str, path: tuple[Any, ...], value: Any) -> None:
    before = {"prompt": {0: "a"}} if len(path) > 1 and path[0] == "prompt" else {"prompt": "a"}
    found: Any = changed(before, [change])
    for part in path:
        found = found[part]
    assert found == value


def test_conditions_are_named_by_their_kind() -> None:
    before = {"prompt": "a", "conditions": [{"kind": "source", "video": "a.mp4", "strength": 0.5}]}
    after = changed(before, ["conditions.source.strength=0.25", "conditions.mask.mask=b.png"])
    assert after["conditions"] == [
        {"kind": "source", "video": "a.mp4", "strength": 0.25},
        {"kind": "mask", "mask": "b.png"},
    ]
    assert before["conditions"][0]["strength"] == 0.5
    assert [each.kind for each in GenerateRequest.parse(after).conditions] == ["source", "mask"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sampling.eta", "takes NAME=VALUE"),
        ("sampling..eta=1", "takes NAME=VALUE"),
        ("prompt.a.b=1", "prompt has no parts"),
        ("conditions.x=1", "name what to set of it"),
        ("sampling.eta=[", "cannot be read: line 1"),
        ("conditions.3.strength=1", "there are 1 conditions, counted from 0"),
    ],
)
def test_what_is_no_change_is_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed({"prompt": "a", "conditions": [{"kind": "mask"}]}, [change])


def test_of_several_conditions_one_is_named_by_its_number() -> None:
    before = {"prompt": "a", "conditions": [{"kind": "control", "model": "a"}, {"kind": "control", "model": "b"}]}
    assert changed(before, ["conditions.1.strength=0.5"])["conditions"][1]["strength"] == 0.5
    with pytest.raises(ConfigError, match="there are 2 of this kind; name one by its number"):
        changed(before, ["conditions.control.strength=0.5"])
    with pytest.raises(ConfigError, match="must be a list of values"):
        changed({"prompt": "a", "conditions": 5}, ["conditions.source.strength=1"])
