"""Classifier-free guidance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from muybridge.sampling import Guidance

TIMESTEP = torch.tensor(500)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    """Depends on every argument, differently for every item of the batch."""
    return latents * 0.5 + text.mean(dim=(1, 2))[:, None, None, None, None] * timestep / 1000


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 7.5])
def test_formula(scale: float, batched: bool) -> None:
    latents, positive, negative = draw(2, 4, 3, 5, 6, seed=0), draw(2, 7, 8, seed=1), draw(2, 7, 8, seed=2)

    found = Guidance(linear, {"text": positive}, {"text": negative}, scale, batched)(latents, TIMESTEP)

    conditional, unconditional = linear(latents, TIMESTEP, positive), linear(latents, TIMESTEP, negative)
    assert torch.allclose(found, unconditional + scale * (conditional - unconditional), atol=1e-6)


def test_scale_1_is_the_conditional_prediction() -> None:
    latents, positive, negative = draw(1, 4, 3, 5, 6, seed=0), draw(1, 7, 8, seed=1), draw(1, 7, 8, seed=2)
    expected = linear(latents, TIMESTEP, positive)

    assert torch.equal(Guidance(linear, {"text": positive}, {"text": negative}, 1.0)(latents, TIMESTEP), expected)


def test_without_negative_the_network_runs_once_on_the_positive() -> None:
    batches = []

    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        batches.append(len(latents))
        return linear(latents, timestep, text)

    latents, positive = draw(2, 4, 3, 5, 6, seed=0), draw(2, 7, 8, seed=1)

    found = Guidance(predict, {"text": positive}, None, 7.5)(latents, TIMESTEP)

    assert torch.equal(found, linear(latents, TIMESTEP, positive))
    assert batches == [2]


@pytest.mark.parametrize(("batched", "expected"), [(True, [4]), (False, [2, 2])])
def test_branches_run_together_or_one_by_one(batched: bool, expected: list[int]) -> None:
    batches = []

    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        batches.append(len(latents))
        return linear(latents, timestep, text)

    states = draw(2, 7, 8, seed=1)
    Guidance(predict, {"text": states}, {"text": -states}, 7.5, batched)(draw(2, 4, 3, 5, 6, seed=0), TIMESTEP)

    assert batches == expected


def test_batched_equals_one_by_one_with_a_network(pipeline: Any) -> None:
    def predict(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return pipeline.unet(latents, timestep, text).sample

    latents, positive, negative = draw(2, 4, 3, 8, 8, seed=0), draw(2, 7, 16, seed=1), draw(2, 7, 16, seed=2)

    with torch.no_grad():
        together, apart = (
            Guidance(predict, {"text": positive}, {"text": negative}, 7.5, b)(latents, TIMESTEP) for b in (True, False)
        )

    # Matrix products of another batch size round differently, and the scale magnifies it.
    assert float((together - apart).abs().max() / apart.abs().max()) < 5e-5
