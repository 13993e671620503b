"""A run that is killed at any moment, also while it saves, ends with the weights of one that was left alone."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

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
LONGEST_STEP = 0.05
"""Seconds; one that waited for the disk says nothing of the next."""


def run(folder: Path, killed_at: int | None = None, share: float = 0.0) -> None:
    """Train; from step `killed_at` on the kernel ends the process when that share of a step's time has gone by.

    The signal has no handler, so nothing of the process runs after it, as with -9.
    """
    torch.set_num_threads(1)
    begun, armed = time.monotonic(), False

    def watched(index: int) -> dict[str, Any]:
        nonlocal begun, armed
        if killed_at is not None and not armed and index >= killed_at:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, share * min(time.monotonic() - begun, LONGEST_STEP)))
        begun = time.monotonic()
        return samples(index)

    Trainer(PlainMethod(), watched, CONFIG, folder).fit()


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
    run(tmp_path / "whole")
    for killed_at in [*sorted(dice.sample(range(1, CONFIG.steps - 20), kills)), None]:
        process = context.Process(target=run, args=(tmp_path / "killed", killed_at, dice.uniform(0, 2)))
        process.start()
        process.join()
        assert process.exitcode == (0 if killed_at is None else -signal.SIGALRM), f"step {killed_at}"

    whole, pieces = end_state(tmp_path / "whole"), end_state(tmp_path / "killed")
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    steps = [line.partition(",")[0] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(1, CONFIG.steps + 1)]
    assert len(list((tmp_path / "killed" / "checkpoints").iterdir())) == CONFIG.keep_checkpoints
