"""Curves: what smoothing, thinning, axes and block graphs make of values."""

from __future__ import annotations

import math

import pytest

from muybridge.training.monitoring.curves import Axis, Curve, axis_of, block_graph, short

FALLING = Curve(tuple(range(1000)), tuple(1.0 / (step + 1) for step in range(1000)))


def test_smoothing_keeps_a_constant_and_calms_what_jumps():
    steps = tuple(range(50))
    assert Curve(steps, (3.0,) * 50).smoothed().values == pytest.approx((3.0,) * 50)
    jumping = Curve(steps, tuple(float(step % 2) for step in steps)).smoothed(0.9)
    assert abs(jumping.last - 0.5) < 0.06


def test_values_that_are_not_numbers_are_left_out_of_what_is_drawn():
    curve = Curve((1, 2, 3), (1.0, math.nan, math.inf))
    assert curve.finite() == Curve((1,), (1.0,))
    assert curve.smoothed().values == (1.0,)
    assert block_graph(Curve((1,), (math.nan,)), 10) == [""] * 4


def test_thinning_keeps_ends_and_extremes():
    values = [0.0] * 1000
    values[333], values[777] = 9.0, -9.0
    thin = Curve(tuple(range(1000)), tuple(values)).thinned(100)
    assert len(thin.steps) <= 102
    assert {0, 333, 777, 999} <= set(thin.steps)
    assert list(thin.steps) == sorted(thin.steps)
    assert FALLING.up_to(50).thinned(100) == FALLING.up_to(50)


def test_a_value_between_steps_is_interpolated_and_none_outside():
    curve = Curve((10, 20), (1.0, 2.0))
    assert [curve.at(step) for step in (5, 10, 15, 20, 25)] == [None, 1.0, 1.5, 2.0, None]


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(1e-6, 1.0), (0.02, 0.06), (0.5, 0.50001), (3.0, 3.0), (1e-320, 1e200)])
def test_ticks_are_few_and_lie_on_the_axis(low: float, high: float, is_log: bool):
    axis = axis_of([low, high], is_log)
    if axis is None:
        return
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 8
    assert all(axis.low <= tick * (1 + 1e-9) and tick <= axis.high * (1 + 1e-9) for tick in ticks)


def test_there_is_no_axis_without_values():
    assert axis_of([]) is None
    assert axis_of([math.nan]) is None
    assert axis_of([-1.0, 0.0], is_log=True) is None


def test_places_on_a_logarithmic_axis():
    axis = Axis(0.01, 1.0, is_log=True)
    assert [axis.place(value) for value in (0.0, 0.01, 0.1, 1.0, 5.0)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_a_block_graph_falls_from_left_to_right():
    rows = block_graph(FALLING, 20, height=3)
    heights = ["".join(row[column] for row in rows).count("█") for column in range(20)]
    assert all(len(row) == 20 for row in rows)
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > heights[-1]


def test_numbers_are_short():
    assert [short(value) for value in (0.123456, 1e-5, 1234567.0, math.inf)] == ["0.1235", "1e-5", "1.235e+6", "inf"]
