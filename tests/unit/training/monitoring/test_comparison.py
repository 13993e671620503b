"""Two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muybridge.errors import ConfigError
from muybridge.training.monitoring.comparison import compare_runs, flat_settings


def make_run(folder: Path, steps: int = 100, rank: int = 8, loss: float = 1.0, every: int = 50) -> Path:
    folder.mkdir(parents=True)
    lines = []
    for step in range(0, steps + 1, 10):
        line = {"step": step, "loss": loss}
        if step % every == 0:
            line |= {"held_out_loss/t350": loss / (step + 1), "adapter_gap/t350": step / 100}
        lines.append(json.dumps(line) + "\n")
    (folder / "log.jsonl").write_text("".join(lines))
    (folder / "settings.json").write_text(json.dumps({"rank": rank, "motion": {"kind": "temporal"}, "steps": 100}))
    return folder.parent


def test_settings_that_differ_losses_and_held_out_loss_at_the_last_step_of_both(tmp_path: Path):
    first, second = make_run(tmp_path / "a" / "lora"), make_run(tmp_path / "b" / "lora", 60, 16, 0.5)
    (stage,) = compare_runs(first, second)
    assert stage.settings == {"rank": ("8", "16")}
    assert [row[0] for row in stage.losses] == [6, 15, 30, 45, 60]
    assert stage.losses[-1][1:] == pytest.approx((1.0, 0.5))
    assert stage.step == 50
    assert stage.held_out == {"held_out_loss/t350": (1 / 51, 0.5 / 51), "adapter_gap/t350": (0.5, 0.5)}


def test_runs_without_common_looks_have_no_held_out_loss_to_compare(tmp_path: Path):
    first = make_run(tmp_path / "a" / "lora")
    (tmp_path / "b" / "lora").mkdir(parents=True)
    (tmp_path / "b" / "lora" / "log.jsonl").write_text('{"step": 7, "loss": 1, "held_out_loss/t350": 1}\n')
    (stage,) = compare_runs(first, tmp_path / "b")
    assert (stage.held_out, stage.step) == ({}, None)


def test_stages_are_matched_by_name_unless_each_run_has_one(tmp_path: Path):
    first, second = make_run(tmp_path / "a" / "lora"), make_run(tmp_path / "b" / "motion")
    assert [stage.name for stage in compare_runs(first, second)] == ["lora and motion"]
    make_run(tmp_path / "b" / "lora")
    assert [stage.name for stage in compare_runs(tmp_path / "b", tmp_path / "b")] == ["motion", "lora"]
    make_run(tmp_path / "a" / "vae")
    make_run(tmp_path / "c" / "text")
    with pytest.raises(ConfigError, match="none is in both"):
        compare_runs(tmp_path / "a", tmp_path / "c")


def test_settings_by_their_full_names():
    assert flat_settings({"motion": {"kind": "x", "config": {}}, "layers": None, "debug": ["a"]}) == {
        "motion.kind": "x",
        "motion.config": "{}",
        "layers": "null",
        "debug": '["a"]',
    }
