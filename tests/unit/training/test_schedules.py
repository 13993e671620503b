"""How the learning rate goes over a run."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from muybridge.training.schedules import ScheduleName, ScheduleSettings


def factors(name: ScheduleName, warmup_steps: int, steps: int = 20) -> list[float]:
    schedule = ScheduleSettings(name=name, warmup_steps=warmup_steps)
    return [schedule.factor(step, steps) for step in range(steps)]


@pytest.mark.parametrize("warmup_steps", [0, 1, 7, 100])
@pytest.mark.parametrize("decay_from", [0.0, 0.3, 0.5, 1.0])
def test_the_default_is_a_plateau_that_falls_to_its_end(warmup_steps: int, decay_from: float) -> None:
    schedule = ScheduleSettings(warmup_steps=warmup_steps, decay_from=decay_from)
    tail = 30 * (1 - decay_from)
    for step in range(30):
        warm = min(1.0, (step + 1) / max(1, warmup_steps))
        fallen = min(1.0, (30 - step) / tail) if tail > 0 else 1.0
        assert schedule.factor(step, 30) == warm * fallen


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_the_rate_warms_up_evenly(name: ScheduleName) -> None:
    assert factors(name, 4)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_what_follows_the_warm_up() -> None:
    assert factors("constant", 4)[4:] == [1.0] * 16
    assert factors("linear", 4)[4:] == [left / 16 for left in range(16, 0, -1)]
    cosine = factors("cosine", 4)
    assert cosine[4:] == pytest.approx([(1 + math.cos(math.pi * done / 16)) / 2 for done in range(16)])


@pytest.mark.parametrize("name", ["plateau", "constant", "linear", "cosine"])
def test_a_warm_up_longer_than_the_run_goes_on_to_its_end(name: ScheduleName) -> None:
    values = factors(name, 100, steps=10)
    assert all(0 < value <= 0.1 for value in values)


@pytest.mark.parametrize("name", ["plateau", "linear", "cosine"])
def test_a_rate_that_falls_is_never_below_zero(name: ScheduleName) -> None:
    values = factors(name, 0)
    assert values[0] == 1
    assert 0 < values[-1] < 0.15
    assert ScheduleSettings(name=name, warmup_steps=3).factor(20, 20) == pytest.approx(0)


def test_which_schedules_fall() -> None:
    falling = {"plateau": True, "constant": False, "linear": True, "cosine": True}
    assert {name: ScheduleSettings.model_validate({"name": name}).falls for name in falling} == falling
    assert not ScheduleSettings(decay_from=1).falls


def test_only_a_plateau_has_an_end() -> None:
    with pytest.raises(ValidationError, match=r"decay_from .* cosine"):
        ScheduleSettings(name="cosine", decay_from=0.5)
