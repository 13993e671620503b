"""A run as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from muybridge.training.monitoring.curves import Curve
from muybridge.training.monitoring.record import Sheet, StageRecord
from muybridge.training.monitoring.terminal import lasted, screen

STEPS = tuple(range(0, 110, 10))
RECORD = StageRecord(
    "lora",
    Path("work/lora"),
    {
        "seconds": Curve(STEPS, tuple(step / 2 for step in STEPS)),
        "loss": Curve(STEPS, tuple(1 / (step + 1) for step in STEPS)),
        "held_out_loss/t350": Curve((0, 100), (0.5, 0.25)),
        "gradient_norm": Curve(STEPS, (1.0,) * 11),
        "clipped": Curve(STEPS, (0.9,) * 11),
    },
    {"steps": 400},
    (Sheet(100, Path("work/lora/sheets/step-000100.png"), "samples"),),
)


@pytest.mark.parametrize("width", [20, 60, 120])
def test_it_fits_and_says_how_far_it_is(width: int):
    lines = screen(RECORD, width)
    text = "\n".join(lines)
    for expected in ("step 100/400", "2 steps/s", "2 min 30 s left", "step-000100.png", "! In 90%", "█"):
        assert expected in text
    assert all(len(line) <= width for line in lines[1:] if not line.startswith("newest"))


@pytest.mark.parametrize(("height", "graphs"), [(5, 1), (14, 1), (24, 3), (None, 3)])
def test_there_are_as_many_graphs_as_find_room(height: int | None, graphs: int):
    lines = screen(RECORD, 60, height)
    assert sum(" was " in line for line in lines) == graphs
    assert any(line.startswith("! In 90%") for line in lines)
    assert height is None or height < 14 or len(lines) <= height


def test_a_run_that_has_only_begun():
    assert screen(StageRecord("lora", Path("lora"), {}), 80)[0] == "lora  step 0"
    done = StageRecord("lora", Path("lora"), {**RECORD.curves, "loss": Curve((0,), (float("nan"),))}, {"steps": 100})
    text = "\n".join(screen(done, 80))
    assert "finished" in text
    assert "no value yet" in text


def test_times_are_in_two_units():
    assert [lasted(seconds) for seconds in (5, 65, 3700, 90000)] == ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
