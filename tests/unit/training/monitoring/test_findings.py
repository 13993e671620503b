"""What is said of the values of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muybridge.training.monitoring.curves import Curve
from muybridge.training.monitoring.findings import UpdateCurves, findings, update_findings
from muybridge.training.monitoring.record import StageRecord

STEPS = 10, 20, 30


def group(gradient: float = 1.0, ratio: float = 1e-3, clipped: float = 0.1) -> UpdateCurves:
    return UpdateCurves(*(Curve(STEPS, (value,) * 3) for value in (gradient, ratio, clipped)))


def record(settings: dict[str, Any] | None = None, /, **values: tuple[float, ...]) -> StageRecord:
    curves = {name.replace("__", "/"): Curve(tuple(range(0, 10 * len(v), 10)), v) for name, v in values.items()}
    return StageRecord("lora", Path("lora"), curves, settings or {})


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (group(gradient=0.0, ratio=0.0), "no-gradient", "No gradient reaches bad"),
        (group(ratio=0.0), "no-update", "nothing moves"),
        (group(ratio=1e-6), "slow", "1e-6 of the weights' size"),
        (group(ratio=0.2), "fast", "lower the learning rate"),
        (group(clipped=0.8), "clipped", "In 80% of the steps"),
    ],
)
def test_each_fault_is_named_with_where_it_is(bad: UpdateCurves, kind: str, words: str):
    (found,) = update_findings({"good": group(), "bad": bad, "fine": group()})
    assert found.kind == kind
    assert words in found.text
    assert "bad" in found.text
    assert "good" not in found.text


def test_what_is_healthy_gives_no_word():
    assert update_findings({"good": group(), "fine": group()}) == []
    assert update_findings({}) == []


def test_all_of_it_is_called_everything():
    (found,) = update_findings({"a": group(gradient=0.0), "b": group(gradient=0.0)})
    assert "everything that is trained" in found.text


def test_small_updates_of_the_warmup_do_not_count():
    rising = UpdateCurves(Curve(STEPS, (1.0,) * 3), Curve(STEPS, (1e-6, 1e-6, 1e-3)), Curve(STEPS, (0.0,) * 3))
    assert [each.kind for each in update_findings({"a": rising})] == ["slow"]
    assert update_findings({"a": rising}, warmup=20) == []
    values = {"gradient_norm__a": (1.0,) * 4, "update_ratio__a": (0, 1e-6, 1e-6, 1e-3), "clipped_share__a": (0.0,) * 4}
    assert [each.kind for each in findings(record(**values))] == ["slow"]
    assert findings(record({"warmup_steps": 20}, **values)) == []
    assert findings(record({"schedule": {"warmup_steps": 20}}, **values)) == []


def test_a_run_that_learns_gives_no_word():
    values = {"held_out_loss__t350": (0.5, 0.4, 0.3), "training_loss__t350": (0.5, 0.4, 0.3)}
    assert (
        findings(record(loss=(1.0, 0.5), adapter_gap__t350=(0.0, 0.2), shuffled_gap__t350=(0.0, 0.1), **values)) == []
    )


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"loss": (1.0, float("nan"))}, "loss"),
        ({"clipped": (0.0, 0.9)}, "clipped"),
        ({"adapter_gap__t350": (0.0, 0.0005), "adapter_gap__t550": (0.0, -0.1)}, "adapter"),
        ({"shuffled_gap__t350": (0.0, 0.0005)}, "shuffled"),
        ({"held_out_loss__t50": (1.0, 0.5, 0.8), "training_loss__t50": (1.0, 0.5, 0.2)}, "overfitting"),
        ({"samples__identical": (1.0, 0.9)}, "still"),
    ],
)
def test_faults_of_a_run(values: dict[str, tuple[float, ...]], kind: str):
    assert [found.kind for found in findings(record(**values))] == [kind]


def test_gaps_before_the_first_step_are_no_fault():
    assert findings(record(adapter_gap__t350=(0.0,), shuffled_gap__t350=(0.0,))) == []
