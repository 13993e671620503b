"""Choosing settings for a budget."""

from __future__ import annotations

import pytest

from muybridge.errors import ConfigError
from muybridge.files.byte_counts import parse_bytes
from muybridge.runtime.plan import CHOICES, PlanSettings, StageNeed, choose_run, plan_runs

GB = 10**9


def count(settings: PlanSettings) -> tuple[int, dict[str, StageNeed]]:
    """A text encoder of 8 GB, a network of 4 and a VAE of 1, in float32."""
    size = 4 if settings.dtype == "float32" else 2
    branches = 2 if settings.guidance == "batched" else 1
    unit = size * GB // 4
    decode = unit if settings.tiled_vae else 6 * unit
    needs = {
        "text": StageNeed(8 * unit, unit, 0),
        "denoise": StageNeed(4 * unit, unit // 10, branches * 2 * unit),
        "decode": StageNeed(unit, unit // 10, decode),
    }
    return 13 * unit, needs


def test_peaks_are_weights_that_are_there_and_activations() -> None:
    plain, half, sequential, tiled, model, group = (run.peaks for run in plan_runs(count, 10))

    assert plain == {"text": 13 * GB, "denoise": 17 * GB, "decode": 19 * GB}
    assert half == {name: peak // 2 for name, peak in plain.items()}
    assert sequential == {**half, "denoise": half["denoise"] - GB}
    assert tiled == {**sequential, "decode": 7 * GB}
    assert model == {"text": 4 * GB, "denoise": 3 * GB, "decode": GB}
    assert group == {"text": GB, "denoise": GB + GB // 10, "decode": GB // 2 + GB // 10}


def test_the_first_that_fits_is_chosen() -> None:
    runs = plan_runs(count, 10)

    assert choose_run(runs, 20 * GB).settings == PlanSettings("float32")
    assert choose_run(runs, 8 * GB).settings == PlanSettings("bfloat16", "sequential", True)
    assert choose_run(runs, 2 * GB).settings == CHOICES[-1]


def test_a_budget_that_nothing_fits_names_the_smallest() -> None:
    with pytest.raises(ConfigError, match=r"Nothing fits 0.5 GB: the least is 1.1 GB, in the stage 'denoise', with"):
        choose_run(plan_runs(count, 10), GB // 2)


def test_costs_of_moving_weights_grow_with_steps() -> None:
    few, many = (plan_runs(count, steps)[-1].costs[-1] for steps in (1, 100))

    assert few == "weights move in every step, 8.5 GB in about 0.34 s where that is not hidden"
    assert many.startswith("weights move in every step, 404 GB")


@pytest.mark.parametrize(
    ("text", "size"), [("12GB", 12 * GB), ("800 MiB", 800 * 2**20), ("6e9", 6 * GB), ("1.5gib", 3 * 2**29)]
)
def test_budgets_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-3GB", "12 gigs"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="A budget is a number of bytes"):
        parse_bytes(text)
