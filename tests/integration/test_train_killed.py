"""A run that is killed at any moment, also while it saves, ends with the weights of one that was left alone."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch
from tests.training_processes import PlainMethod, samples

from muybridge.training.checkpoints import Checkpoint, Checkpoints
from muybridge.training.config import TrainerConfig
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.state import WHOLE_FILE
from muybridge.training.trainer import Trainer

# A checkpoint after each step, so that most of the time is spent saving.
CONFIG = TrainerConfig(
    steps=60,
    schedule=ScheduleSettings(warmup_steps=4),
    checkpoint_seconds=1e-9,
    log_every=1,
    mixed_precision="no",
    trackers=(),
)


def run(folder: Path) -> None:
    torch.set_num_threads(1)
    Trainer(PlainMethod(), samples, CONFIG, folder).fit()


def end_state(folder: Path) -> dict[str, torch.Tensor]:
    def read(found: Checkpoint) -> dict[str, torch.Tensor]:
        assert found.facts["step"] == CONFIG.steps
        state = torch.load(found.folder / WHOLE_FILE, weights_only=True)
        return state["parameters"] | {f"average {n}": value for n, value in state["ema"]["average"].items()}

    return Checkpoints(folder).newest(read) or {}


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 20])
def test_a_killed_run_ends_as_one_that_was_left_alone(tmp_path: Path, kills: int) -> None:
    # Processes that are copies of one that has imported everything begin at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "muybridge.training.trainer", "tests.training_processes"])
    dice = random.Random(7)
    began = time.monotonic()
    run(tmp_path / "whole")
    length = time.monotonic() - began
    killed = 0
    for attempt in range(10 * kills):
        process = context.Process(target=run, args=(tmp_path / "killed",))
        process.start()
        process.join(None if killed == kills else dice.uniform(0.1, 1.0) * length / kills * 4)
        if process.exitcode is not None:
            assert process.exitcode == 0, f"attempt {attempt}"
            break
        process.kill()
        process.join()
        killed += 1

    whole, pieces = end_state(tmp_path / "whole"), end_state(tmp_path / "killed")
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    steps = [line.partition(",")[0] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(1, CONFIG.steps + 1)]
    assert killed > 0
    assert len(list((tmp_path / "killed" / "checkpoints").iterdir())) == CONFIG.keep_checkpoints
