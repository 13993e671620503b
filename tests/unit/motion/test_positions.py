"""Sinusoidal positions."""

from __future__ import annotations

import math

import pytest
import torch

from muybridge.motion.positions import sinusoidal_positions


def test_values() -> None:
    found = sinusoidal_positions(torch.tensor([0, 3]), 4)
    assert found[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    expected = torch.tensor([math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)])
    assert torch.allclose(found[1], expected, atol=1e-7)


@pytest.mark.parametrize("width", [1, 5, 320])
def test_shape_and_dtype(width: int) -> None:
    found = sinusoidal_positions(torch.arange(6, dtype=torch.float64), width)
    assert found.shape == (6, width)
    assert found.dtype == torch.float32


def test_any_position_has_a_value() -> None:
    found = sinusoidal_positions(torch.tensor([-2.0, 0.5, 1e4]), 8)
    assert found.isfinite().all()
    assert torch.allclose(found[:, 0], torch.tensor([-2.0, 0.5, 1e4]).sin(), atol=1e-4)
    assert torch.unique(found, dim=0).shape[0] == 3
