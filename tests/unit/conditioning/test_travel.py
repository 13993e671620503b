"""Prompts by frame."""

from __future__ import annotations

import pytest
import torch

from muybridge.conditioning.travel import check_travel, travel_weights, travelled
from muybridge.errors import ConfigError, ShapeError


def test_weights_are_linear_between_prompts_and_constant_outside() -> None:
    weights = travel_weights([2, 4, 5], 8)

    assert torch.equal(weights[:, 0], torch.tensor([1, 1, 1, 0.5, 0, 0, 0, 0]))
    assert torch.equal(weights[:, 1], torch.tensor([0, 0, 0, 0.5, 1, 0, 0, 0]))
    assert torch.equal(weights.sum(dim=1), torch.ones(8))


def test_one_prompt_is_the_same_everywhere() -> None:
    states = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))

    assert torch.equal(travelled(states, [3], 5), states[None].expand(1, 5, 3, 4))


def test_states_of_a_frame_lie_between_those_of_the_prompts() -> None:
    states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))

    between = travelled(states, [0, 4], 5)

    assert torch.equal(between[0, 0], states[0])
    assert torch.equal(between[0, 4], states[1])
    assert torch.allclose(between[0, 1], 0.75 * states[0] + 0.25 * states[1])


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ({}, ConfigError, "are empty"),
        ({4: "a", 0: "b"}, ConfigError, r"in the order of their frames; given \[4, 0\]"),
        ({0: "a", 8: "b"}, ShapeError, "frame 8 is outside the video, which has frames 0 to 7"),
        ({-1: "a"}, ShapeError, "frame -1 is outside"),
    ],
)
def test_prompts_that_cannot_be_travelled_through(
    prompts: dict[int, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_travel(prompts, 8)
