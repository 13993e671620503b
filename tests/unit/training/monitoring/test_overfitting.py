"""Learning a few clips by heart: when that is passed, and what is said when not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.training.monitoring.small import Adapted, Whole, batches
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.monitoring.clip_figures import ClipFigures
from muybridge.training.monitoring.curves import Curve
from muybridge.training.monitoring.findings import UpdateCurves
from muybridge.training.monitoring.overfitting import OverfitRecord, OverfitSettings, judge, overfit
from muybridge.training.optimizers import OptimizerSettings
from muybridge.training.stages.stage import StageWork


def group(gradient: float = 1.0, ratio: float = 1e-3) -> UpdateCurves:
    return UpdateCurves(*(Curve((1, 11), (value,) * 2) for value in (gradient, ratio, 0.0)))


LEARNED = OverfitRecord(
    before={350: 0.4, 550: 0.2, 750: 0.1},
    after={350: 0.2, 550: 0.1, 750: 0.05},
    without={350: 0.4, 550: 0.2, 750: 0.1},
    weights={"a": group(), "b": group()},
    together=group(),
    clips=ClipFigures(5.0, 3.0, 0.0),
    steps=200,
)
STUCK = replace(LEARNED, after=LEARNED.before)


def test_what_learned_passes():
    verdict = judge(LEARNED, 0.3)
    assert verdict.passed
    assert verdict.fall == pytest.approx(0.5)
    assert verdict.adapter_gap == pytest.approx(1.0)
    assert str(verdict) == (
        "overfit: passed: the loss on the clips fell by 50% (more than 30% is asked for); without what was learned "
        "it is +100%"
    )
    assert not judge(LEARNED, 0.5).passed
    assert judge(replace(LEARNED, without=None), 0.3).passed


def test_a_tensor_without_gradient_is_said_even_so():
    verdict = judge(replace(LEARNED, weights={"a": group(), "b": group(0.0, 0.0)}), 0.3)
    assert verdict.passed
    assert [reason.kind for reason in verdict.reasons] == ["no-gradient"]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"weights": {"a": group(0.0, 0.0), "b": group(0.0, 0.0)}, "together": group(0.0, 0.0)}, ["no-gradient"]),
        ({"weights": {"a": group(1.0, 0.0)}, "together": group(1.0, 0.0)}, ["no-update"]),
        ({"together": group(1.0, 1e-7)}, ["slow"]),
        ({"together": group(1.0, 0.5)}, ["fast"]),
        ({"clips": ClipFigures(0.0, 0.0, 1.0)}, ["identical-frames"]),
        ({}, ["floor"]),
        ({"after": {350: 0.32, 550: 0.16, 750: 0.08}}, ["slow-learning"]),
        ({"after": dict.fromkeys(LEARNED.before, float("inf"))}, ["rate"]),
        (
            {
                "weights": {"a": group(0.0, 0.0), "b": group(1.0, 0.0)},
                "together": group(1.0, 0.5),
                "clips": ClipFigures(0.0, 0.0, 1.0),
            },
            ["no-gradient", "no-update", "fast", "identical-frames"],
        ),
    ],
)
def test_reasons_stand_in_the_order_to_look_at_them(changes: dict[str, Any], kinds: list[str]):
    verdict = judge(replace(STUCK, **changes), 0.3)
    assert not verdict.passed
    assert [reason.kind for reason in verdict.reasons] == kinds
    assert str(verdict).startswith("overfit: failed: the loss on the clips ")


def test_an_adapter_that_makes_no_difference_does_not_pass():
    verdict = judge(replace(LEARNED, without=LEARNED.after), 0.3)
    assert not verdict.passed
    assert [reason.kind for reason in verdict.reasons] == ["no-difference"]


SETTINGS = OverfitSettings(
    steps=60, learning_rate=5e-3, optimizer=OptimizerSettings(name="adamw"), look_every=6, max_gradient_norm=10.0
)


def work(method: nn.Module) -> StageWork:
    return StageWork(method, batches(1), dict)


def test_an_adapter_learns_a_batch():
    told: list[tuple[int, int]] = []
    verdict = overfit(work(Adapted()), SETTINGS, lambda *done: told.append(done))
    assert verdict.passed, str(verdict)
    assert verdict.adapter_gap is not None
    assert verdict.adapter_gap > 0.5
    assert verdict.least_fall == 0.3
    assert verdict.reasons == ()
    assert told == [(step, 60) for step in range(1, 61)]


def test_a_whole_network_must_learn_more():
    verdict = overfit(work(Whole()), SETTINGS)
    assert verdict.passed, str(verdict)
    assert (verdict.least_fall, verdict.adapter_gap) == (0.5, None)


def test_what_gets_no_gradient_is_found():
    method = Adapted()
    method.register_parameter("dead", nn.Parameter(torch.ones(3)))
    verdict = overfit(work(method), replace(SETTINGS, steps=3, look_every=1))
    (found,) = [reason for reason in verdict.reasons if reason.kind == "no-gradient"]
    assert "reaches dead:" in found.text


@pytest.mark.parametrize(("rate", "kinds"), [(1e12, {"rate", "fast"}), (1e-9, {"slow"}), (1e-30, {"no-update"})])
def test_a_wrong_rate_is_found(rate: float, kinds: set[str]):
    method = Whole() if rate < 1 else Adapted()
    verdict = overfit(work(method), replace(SETTINGS, steps=6, learning_rate=rate, look_every=1))
    assert not verdict.passed
    assert kinds & {reason.kind for reason in verdict.reasons}


def test_clips_that_are_stills_are_found():
    def stills(index: int) -> dict[str, Tensor]:
        pixels = batches(1)(index)["pixels"]
        return {"pixels": pixels[:, :1].expand_as(pixels).clone()}

    verdict = overfit(StageWork(Adapted(), stills, dict), replace(SETTINGS, steps=2))
    assert verdict.reasons[-1].kind == "identical-frames"


def test_what_cannot_be_tried_is_refused():
    with pytest.raises(ConfigError, match="takes noise off"):
        overfit(work(nn.Linear(1, 1)), SETTINGS)
    with pytest.raises(ConfigError, match="one step"):
        overfit(work(Adapted()), replace(SETTINGS, steps=0))
