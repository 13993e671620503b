"""The moving average of the weights."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from muybridge.training.ema import ExponentialMovingAverage


def weight_of(average: ExponentialMovingAverage, model: nn.Linear) -> float:
    with average.applied():
        return float(model.weight.detach())


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_the_average_follows_slowly_and_the_live_weights_stay():
    model = linear(0.0)
    average = ExponentialMovingAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 1.0)

    averages = []
    for _ in range(4):
        average.update()
        averages.append(weight_of(average, model))

    # The decay of the first updates is 2/11, 3/12, 4/13, 5/14: below 0.5, so that the start is soon forgotten.
    expected, value = [], 0.0
    for decay in (2 / 11, 3 / 12, 4 / 13, 5 / 14):
        value = value * decay + 1 - decay
        expected.append(value)
    assert averages == pytest.approx(expected, abs=1e-6)
    assert float(model.weight.detach()) == 1.0


def test_the_decay_grows_to_its_final_value():
    model = linear(0.0)
    average = ExponentialMovingAverage(model, decay=0.9)
    for _ in range(200):
        average.update()
    nn.init.constant_(model.weight, 1.0)

    average.update()

    assert weight_of(average, model) == pytest.approx(0.1, abs=1e-6)


def test_live_weights_come_back_after_an_error():
    model = linear(2.0)
    average = ExponentialMovingAverage(model, decay=0.9)
    nn.init.constant_(model.weight, 3.0)

    with contextlib.suppress(ZeroDivisionError), average.applied():
        assert float(model.weight.detach()) == 2.0
        raise ZeroDivisionError

    assert float(model.weight.detach()) == 3.0


def test_half_precision_weights_are_averaged_in_full():
    model = linear(1.0).to(torch.bfloat16)
    average = ExponentialMovingAverage(model, decay=0.999)
    average.num_updates = 10_000
    nn.init.constant_(model.weight, 1.0078125)

    average.update()

    assert 1 < float(average.state_dict()["average"]["weight"]) < 1.0001


def test_frozen_parameters_are_not_averaged():
    model = nn.Sequential(linear(1.0), linear(1.0))
    model[0].requires_grad_(False)

    average = ExponentialMovingAverage(model, decay=0.9)

    assert average.state_dict()["average"].keys() == {"1.weight"}


def test_the_average_continues_from_its_state():
    models = [linear(0.0), linear(5.0)]
    first, second = (ExponentialMovingAverage(model, decay=0.9) for model in models)
    nn.init.constant_(models[0].weight, 1.0)
    first.update()

    second.load_state_dict(first.state_dict())
    nn.init.constant_(models[1].weight, 1.0)
    for average in (first, second):
        average.update()

    assert weight_of(first, models[0]) == weight_of(second, models[1])
