"""Loading with nothing missing and nothing left over. Folders are tested with the models that load them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muybridge.errors import CheckpointError
from muybridge.weights.loading import load_strictly, require_finite


def state(**changes: Any) -> dict[str, Tensor]:
    whole = {"weight": torch.ones(3, 2), "bias": torch.arange(3.0)} | changes
    return {name: value for name, value in whole.items() if value is not None}


def test_loads_and_converts() -> None:
    layer = nn.Linear(2, 3, dtype=torch.bfloat16)
    load_strictly(layer, state(), "w.ckpt")
    assert torch.equal(layer.weight, torch.ones(3, 2, dtype=torch.bfloat16))
    assert layer.bias.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": None}, r"^w.ckpt has no weights for bias\.$"),
        ({"scale": torch.ones(1)}, r"^w.ckpt has keys that the model does not have: scale\.$"),
        ({"weight": torch.ones(2, 3)}, r"shapes that do not fit: weight \(2, 3\) instead of \(3, 2\)"),
        ({"bias": torch.tensor([0.0, float("nan"), 0.0])}, r"NaN or infinite values in bias"),
        ({"bias": torch.tensor([0.0, float("inf"), 0.0])}, r"NaN or infinite values in bias"),
        ({"bias": torch.tensor([0.0, float("nan"), 0.0]).to(torch.float8_e4m3fn)}, r"infinite values in bias"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    layer = nn.Linear(2, 3)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_strictly(layer, state(**changes), "w.ckpt")
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_the_first_three_are_named_and_the_others_counted() -> None:
    bad = [(f"layer{i}", torch.tensor(float("nan"))) for i in range(5)]
    with pytest.raises(CheckpointError, match=r"in layer0, layer1, layer2 and 2 more\."):
        require_finite(bad, "w.ckpt")


def test_integers_are_finite() -> None:
    require_finite([("steps", torch.tensor([1, 2])), ("half", torch.ones(1).to(torch.float8_e5m2))], "w.ckpt")
