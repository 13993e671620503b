"""Settings of the trainer: short forms, what may change, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from muybridge.errors import ConfigError
from muybridge.training.config import (
    CHANGEABLE_SETTINGS,
    TrainerConfig,
    changed_settings,
    comparable,
    settled_precision,
    with_schedule,
)
from muybridge.training.optimizers import OptimizerSettings
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.stages.lora import LoraStage


def stage(**settings: Any) -> LoraStage:
    return LoraStage.model_validate({"method": "lora", "steps": 3, "batch_size": 2, **settings})


def test_a_schedule_may_be_said_in_short() -> None:
    assert stage(warmup_steps=5, decay_from=0.3).schedule == ScheduleSettings(warmup_steps=5, decay_from=0.3)
    assert stage(schedule="cosine", warmup_steps=5).schedule == ScheduleSettings(name="cosine", warmup_steps=5)
    assert stage(schedule={"name": "linear", "warmup_steps": 1}).schedule.falls
    assert stage(optimizer="adamw").optimizer == OptimizerSettings(name="adamw")
    assert stage(optimizer={"name": "adamw", "weight_decay": 0.1}).optimizer.weight_decay == 0.1
    with pytest.raises(ValidationError, match="warmup_steps is given twice"):
        stage(schedule={"warmup_steps": 5}, warmup_steps=5)
    with pytest.raises(ValidationError, match="decay_from"):
        stage(schedule="cosine", decay_from=0.5)


def test_words_that_yaml_takes_for_something_else() -> None:
    words = stage(mixed_precision=False, sharding=None, gradient_checkpointing=None)
    assert (words.mixed_precision, words.sharding, words.gradient_checkpointing) == ("no", "none", "none")


def test_records_of_any_age_compare() -> None:
    before = {"learning_rate": 1.0, "warmup_steps": 100, "decay_from": 0.5}
    now = {"learning_rate": 1.0, "schedule": ScheduleSettings().model_dump(mode="json"), "accumulate": 1}
    assert changed_settings(before, now, frozenset()) == []
    other = {**now, "schedule": ScheduleSettings(warmup_steps=9).model_dump(mode="json")}
    assert changed_settings(before, other, frozenset()) == ["schedule"]
    assert comparable({"debug": ("a",)}) == {"debug": ["a"]}
    assert with_schedule({"schedule": 3, "warmup_steps": 2}) == {"schedule": 3, "warmup_steps": 2}


def test_processes_and_batches_a_step_may_change_together() -> None:
    before = {"processes": 2, "accumulate": 3, "sharding": "fsdp2"}
    assert changed_settings(before, {"processes": 1, "accumulate": 6, "sharding": "none"}, CHANGEABLE_SETTINGS) == []
    changed = changed_settings(before, {"processes": 1, "accumulate": 3}, CHANGEABLE_SETTINGS)
    assert changed == ["processes"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be above 0, as nothing is learned at 0; given 0.0"),
        ({"other_learning_rate": -1.0}, "other_learning_rate must be above 0"),
        ({"accumulate": 0}, "accumulate must be at least 1; given 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"ema_decay": 1.0}, "ema_decay must be at least 0"),
        ({"optimizer": OptimizerSettings(name="schedule-free")}, "schedule-free"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TrainerConfig(steps=1), **settings).check()


def test_a_precision_that_is_asked_for_stays() -> None:
    assert settled_precision("fp16", "bf16") == "fp16"
    assert settled_precision("auto", "fp16") == "fp16"
    assert settled_precision("auto", None) in ("bf16", "no")
