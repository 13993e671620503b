"""The engine that renames keys."""

from __future__ import annotations

import pytest
import torch

from muybridge.errors import CheckpointError
from muybridge.weights.keymap import KeyMap, apply_key_map


@pytest.mark.parametrize(
    ("key_map", "key", "expected"),
    [
        (KeyMap(), "a.b", "a.b"),
        (KeyMap(strip_prefixes=("module.", "unet.")), "module.unet.a", "a"),
        (KeyMap(strip_prefixes=("module.",)), "a.module.b", "a.module.b"),
        (KeyMap(keep=r"^a\."), "a.b", "a.b"),
        (KeyMap(keep=r"^a\."), "b.a.b", None),
        (KeyMap(strip_prefixes=("module.",), keep=r"^a\."), "module.a.b", "a.b"),
        (KeyMap(drop=r"\.pe$"), "a.pe", None),
        (KeyMap(drop=r"\.pe$"), "a.pet", "a.pet"),
        (KeyMap(replace=(("a", "b"), ("b", "c"))), "a", "c"),
        (KeyMap(replace=((r"(\d+)\.x", r"x.\1"),)), "7.x", "x.7"),
    ],
)
def test_rename(key_map: KeyMap, key: str, expected: str | None) -> None:
    assert key_map.rename(key) == expected


def test_order_and_values_stay() -> None:
    state = {"module.b": torch.ones(1), "skip.pe": torch.ones(2), "a": torch.ones(3)}
    found = apply_key_map(KeyMap(strip_prefixes=("module.",), drop=r"\.pe$"), state)
    assert list(found) == ["b", "a"]
    assert found["b"] is state["module.b"]
    assert list(state) == ["module.b", "skip.pe", "a"]


def test_two_keys_that_become_one() -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1), "a": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"Keys 'module.a' and 'a' of the file both mean 'a'"):
        apply_key_map(KeyMap(strip_prefixes=("module.",)), state)
