"""Reading what a run left in its folder, also while it is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from muybridge.errors import ConfigError
from muybridge.training.monitoring.curves import Curve
from muybridge.training.monitoring.record import LOG_FILE, read_run, read_stage
from muybridge.training.monitoring.sheets import write_sheet


def write_log(folder: Path, *lines: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines]
    (folder / LOG_FILE).write_text("".join(texts))
    return folder


def test_curves_by_name(tmp_path: Path):
    write_log(tmp_path / "lora", {"step": 0, "held_out_loss/t350": 0.5}, {"step": 10, "seconds": 4, "loss": 0.25})
    (record,) = read_run(tmp_path)
    assert record.name == "lora"
    assert record.curves["loss"] == Curve((10,), (0.25,))
    assert record.group("held_out_loss") == {"t350": Curve((0,), (0.5,))}
    assert (record.step, record.steps, record.seconds, record.steps_a_second) == (10, None, 4, None)


def test_noise_levels_are_in_their_order(tmp_path: Path):
    write_log(tmp_path, {"step": 0} | {f"gap/t{level}": 0.1 for level in (950, 50, 350)})
    assert list(read_stage(tmp_path).group("gap")) == ["t50", "t350", "t950"]


def test_a_line_that_is_being_written_and_damaged_ones_are_left_out(tmp_path: Path):
    write_log(
        tmp_path, {"step": 1, "loss": 1.0}, "{broken\n", "[1]\n", {"loss": 3}, {"step": 2, "loss": 2.0}, '{"step": 3'
    )
    record = read_stage(tmp_path)
    assert record.curves["loss"].steps == (1, 2)
    assert record.unread_lines == 3


def test_a_run_that_went_on_from_before_forgets_what_came_after(tmp_path: Path):
    losses = {1: 1.0, 2: 2.0, 3: 3.0}
    lines = [{"step": step, "loss": loss} for step, loss in losses.items()]
    write_log(tmp_path, *lines, {"step": 2, "loss": 2.5})
    assert read_stage(tmp_path).curves["loss"] == Curve((1, 2), (1.0, 2.5))


def test_speed_and_time_left(tmp_path: Path):
    write_log(tmp_path, *({"step": step, "seconds": step / 4} for step in range(0, 50, 10)))
    (tmp_path / "settings.json").write_text('{"steps": 80}')
    record = read_stage(tmp_path)
    assert (record.steps_a_second, record.seconds_left) == (4, 10)


def test_stages_are_in_the_order_of_their_training(tmp_path: Path):
    for age, name in enumerate(("motion", "image", "vae")):
        log = write_log(tmp_path / name, {"step": 1, "loss": 1}) / LOG_FILE
        os.utime(log, (1e9 - age, 1e9 - age))
    (tmp_path / "motion" / "data.txt").write_text("3 clips\n")
    assert [record.name for record in read_run(tmp_path)] == ["vae", "image", "motion"]
    assert read_run(tmp_path / "motion")[0].data_report == "3 clips"


def test_sheets_come_with_their_words(tmp_path: Path):
    write_log(tmp_path, {"step": 1})
    clip = np.zeros((2, 8, 8, 3), np.uint8)
    write_sheet(tmp_path / "sheets", 20, [("a cat", clip)])
    write_sheet(tmp_path / "sheets", 3, [("a cat", clip)])
    (tmp_path / "sheets" / "other.png").touch()
    sheets = read_stage(tmp_path).sheets
    assert [sheet.step for sheet in sheets] == [3, 20]
    assert sheets[1].description == "Samples at step 20: a cat"


@pytest.mark.parametrize("inside", ["nothing", ""])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, inside: str):
    with pytest.raises(ConfigError, match=r"no training run in .*log\.jsonl"):
        read_run(tmp_path / inside)
