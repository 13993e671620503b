"""How large updates are, and what else an observer sees of a trainer."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training_processes import PlainMethod, samples
from torch import nn

from muybridge.training.config import TrainerConfig
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.trainer import Trainer
from muybridge.training.updates import UpdateWatch

CONFIG = TrainerConfig(
    steps=5, schedule=ScheduleSettings(warmup_steps=2), mixed_precision="no", trackers=(), log_every=5
)


def test_groups_have_norms_of_gradients_and_updates() -> None:
    named = {
        name: nn.Parameter(torch.full((4,), float(value)))
        for name, value in {"net.up.0.a.weight": 1, "net.up.0.b.weight": 1, "net.down.weight": 2, "net.zero": 0}.items()
    }
    for name in ("net.up.0.a.weight", "net.down.weight"):
        named[name].grad = torch.full((4,), 3.0)
    watch = UpdateWatch(named)
    with torch.no_grad():
        named["net.up.0.a.weight"].add_(0.5)
        named["net.zero"].add_(1)
    sizes = watch.sizes(0.25)
    assert list(sizes) == ["up.0", "down", "net.zero"]
    assert sizes["up.0"].gradient_norm == pytest.approx(6)
    assert sizes["up.0"].update_ratio == pytest.approx(1 / math.sqrt(8))
    assert sizes["down"].update_ratio == 0
    assert sizes["net.zero"].gradient_norm == 0
    assert sizes["net.zero"].update_ratio == math.inf
    assert {size.clipped_share for size in sizes.values()} == {0.25}


def test_one_group_is_a_group() -> None:
    named = {"net.a.weight": nn.Parameter(torch.ones(2))}
    assert list(UpdateWatch(named).sizes(0.0)) == ["a.weight"]


class Watcher:
    """Notes what it sees."""

    def __init__(self, every: int, wants_updates: bool) -> None:
        self.every = every
        self.wants_updates = wants_updates
        self.steps: list[int] = []
        self.weights: list[torch.Tensor] = []
        self.ratios: list[float] = []

    def observe(self, trainer: Trainer, step: int) -> dict[str, float]:
        assert not trainer.method.training
        assert not torch.is_grad_enabled()
        self.steps.append(step)
        self.weights.append(next(p for p in trainer.method.parameters() if p.requires_grad).detach().clone())
        self.ratios.append(sum(size.update_ratio for size in trainer.last_update.values()))
        torch.randn(3)  # what it draws is no matter of the run
        return {f"seen/{self.every}": float(step)}


def test_observers_look_at_the_average_before_between_and_at_the_end(tmp_path: Path) -> None:
    plain = Trainer(PlainMethod(), samples, CONFIG, tmp_path / "plain")
    plain.fit()
    twos, fours = Watcher(2, True), Watcher(4, False)
    run = Trainer(PlainMethod(), samples, CONFIG, tmp_path / "seen")
    run.fit(observers=[twos, fours])

    assert twos.steps == [0, 2, 4, 5]
    assert fours.steps == [0, 4, 5]
    assert twos.ratios[0] == 0
    assert 0 < twos.ratios[1] < 1
    assert twos.ratios[3] not in (0, twos.ratios[2])  # of the last step, though it is no second one
    assert list(run.last_update) == ["first", "blocks.0", "blocks.1", "blocks.2", "last"]
    with run.evaluated():
        assert torch.equal(twos.weights[-1], next(p for p in run.method.parameters() if p.requires_grad))
    state, other = plain.method.state_dict(), run.method.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)
    log = [json.loads(line) for line in (tmp_path / "seen" / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line.get("seen/2"), line.get("seen/4")) for line in log] == [
        (0, 0.0, 0.0),
        (2, 2.0, None),
        (4, 4.0, 4.0),
        (5, 5.0, 5.0),
    ]


def test_who_goes_on_does_not_look_at_the_beginning_again(tmp_path: Path) -> None:
    Trainer(PlainMethod(), samples, CONFIG, tmp_path).fit(until=3)
    watcher = Watcher(10, False)
    Trainer(PlainMethod(), samples, replace(CONFIG, steps=6), tmp_path).fit(observers=[watcher])
    assert watcher.steps == [6]
