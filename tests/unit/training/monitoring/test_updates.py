"""The observer of gradients and updates."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.training.monitoring.small import Trainer
from torch import nn

from muybridge.errors import ConfigError
from muybridge.training.monitoring.updates import UpdateSizes


@dataclass(frozen=True)
class Size:
    gradient_norm: float = 1.0
    update_ratio: float = 1e-3
    clipped_share: float = 0.0


def test_values_are_logged_by_group_and_a_fault_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sizes = UpdateSizes(every=10)
    trainer = Trainer(nn.Identity(), tmp_path)
    assert sizes.wants_updates
    assert sizes.observe(trainer, 0) == {}
    with caplog.at_level(logging.WARNING):
        for step in (10, 20, 30, 40, 50):
            trainer.last_update = {"up": Size(), "down": Size(gradient_norm=0.0, update_ratio=0.0)}
            values = sizes.observe(trainer, step)
        assert sizes.observe(trainer, 55) == {}  # the same update, seen at the end
    assert values["update_ratio/up"] == 1e-3
    assert values.keys() == {
        f"{v}/{g}" for v in ("gradient_norm", "update_ratio", "clipped_share") for g in ("up", "down")
    }
    assert [record.message for record in caplog.records] == [f"step 30: {sizes.findings()[0].text}"]
    assert [found.kind for found in sizes.findings()] == ["no-gradient"]


def test_looks_without_steps_between_are_refused():
    with pytest.raises(ConfigError, match="one step apart; given every 0"):
        UpdateSizes(every=0)
