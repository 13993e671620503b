"""Killed at any moment, preparation goes on from there and gives the same bytes."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.preparation_stages import prepare_slowly, write_files

from muybridge.data.preparation.account import Account

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = 20
PROGRAM = "import sys; from tests.preparation_stages import prepare_slowly; prepare_slowly(*sys.argv[1:])"


def start(raw: Path, out: Path) -> psutil.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "src")))}
    command = [sys.executable, "-c", PROGRAM, str(raw), str(out), "2"]
    with (out.parent / "said.txt").open("a") as log:
        return psutil.Popen(command, env=environment, stderr=log)


def said(out: Path) -> str:
    return (out.parent / "said.txt").read_text()


def length(out: Path) -> int:
    journal = out / "journal" / "results.jsonl"
    return journal.stat().st_size if journal.exists() else 0


def wait_for_progress(program: psutil.Popen, out: Path, rng: random.Random) -> bool:
    """Until something was found since now, and a moment longer; whether the program still runs."""
    before = length(out)
    while length(out) <= before and program.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.5))
    return program.poll() is None


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(0)
    raw = write_files(tmp_path / "raw", *map(str, range(400)), "parts 5", "refuse", "parts 0")
    prepare_slowly(str(raw), str(tmp_path / "undisturbed"), "2")
    out, kills = tmp_path / "out", 0

    while kills < KILLS:
        program = start(raw, out)
        assert wait_for_progress(program, out, rng), (kills, said(out))
        workers = [child for child in program.children() if "multiprocessing.spawn" in " ".join(child.cmdline())]
        rng.choice(workers).kill()
        assert wait_for_progress(program, out, rng), (kills, said(out))
        workers = program.children()
        program.kill()
        program.wait()
        kills += 2
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive

    program = start(raw, out)
    assert program.wait() == 0, said(out)
    for name in ("manifest.jsonl", "dropped.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert sum(Account.read(out).inputs.values()) == 403
