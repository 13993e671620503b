"""Processes that crash, hang and want too much memory cost a record each, and the result is that of one process."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.preparation_stages import (
    Double,
    Largest,
    OfKept,
    Read,
    ReadSettings,
    Unloadable,
    recipe,
    runs,
    write_files,
)

from muybridge.data.preparation.account import Account
from muybridge.data.preparation.engine.job import Finished, Job, Limits, Stamp, ended
from muybridge.data.preparation.engine.journal import Journal
from muybridge.data.preparation.engine.pool import PoolEngine
from muybridge.data.preparation.engine.ray_engine import RayEngine, check_reachable
from muybridge.data.preparation.engine.watched import WatchedProcess
from muybridge.data.preparation.engine.worker import Leaving
from muybridge.data.preparation.inputs import Part
from muybridge.data.preparation.prepare import EngineName, PrepareSettings, prepare
from muybridge.data.preparation.recipe import Recipe
from muybridge.data.record import Record
from muybridge.errors import ConfigError, PreparationError

CLIP = Record("a", "a", "video")
ALL = recipe(Read(), Double(), Largest(), OfKept())
GOOD = ("4", "12", "parts 3", "33", "refuse", "raise", "22", "write")


def run(raw: Path, out: Path, asked: Recipe = ALL, engine: EngineName = "pool", workers: int | None = 2) -> Account:
    limits = Limits(seconds=1.0, per_second=0.0)
    settings = PrepareSettings(engine=engine, workers=None if engine == "serial" else workers, limits=limits)
    account = prepare(raw, out, asked, settings)
    assert account is not None
    return account


def lists(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in ("manifest.jsonl", "dropped.jsonl")]


def test_a_pool_gives_what_one_process_gives(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", *GOOD)
    expected = run(raw, tmp_path / "out", engine="serial")
    (tmp_path / "out").rename(tmp_path / "serial")

    assert run(raw, tmp_path / "out", workers=1) == expected
    assert lists(tmp_path / "out") == lists(tmp_path / "serial")


@pytest.mark.slow
def test_a_crash_a_hang_and_a_bomb_cost_a_record_each(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", *GOOD, "kill", "hang", "bomb")

    account = run(raw, tmp_path / "out")

    assert account.inputs == {"ok": 5, "crashed": 2, "dropped": 1, "failed": 1, "timeout": 1, "unreadable": 1}
    found = {(o.status, o.rule, o.reason) for o in account.outcomes if o.status in ("crashed", "timeout")}
    assert found == {
        ("crashed", "crashed", "its process ended: SIGKILL"),
        ("crashed", "memory", "it needs more memory than it may have"),
        ("timeout", "timeout", "it took longer than 1 s"),
    }
    # Two tries of what may have been an accident, and one of what is not.
    assert runs(tmp_path / "out").count("read") == len(GOOD) + 2 + 2 + 1


@pytest.mark.slow
def test_every_engine_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", *GOOD, *map(str, range(100, 140)))
    run(raw, tmp_path / "serial", engine="serial")

    for workers in (1, 3):
        out = tmp_path / str(workers)
        run(raw, out, workers=workers)
        assert [line.replace(os.fsencode(out), b"") for line in lists(out)] == [
            line.replace(os.fsencode(tmp_path / "serial"), b"") for line in lists(tmp_path / "serial")
        ]
    out = tmp_path / "parts"
    for number in (2, 1):
        prepare(raw, out, ALL, PrepareSettings(workers=2, part=Part(number, 2)))
    run(raw, out)
    assert lists(out)[0] == lists(tmp_path / "serial")[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_gives_the_same_bytes_and_no_crash_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its processes wait for all others of the machine
    raw, out = write_files(tmp_path / "raw", *GOOD, "kill", "hang", "bomb"), tmp_path / "out"
    run(raw, out)
    out.rename(tmp_path / "pool")

    account = run(raw, out, engine="ray")

    assert account.inputs == {"ok": 5, "crashed": 2, "dropped": 1, "failed": 1, "timeout": 1, "unreadable": 1}
    assert lists(out) == lists(tmp_path / "pool")
    unloadable = recipe(Read(), Unloadable())
    with pytest.raises(PreparationError, match=r"The stage unloadable cannot begin: its model is not there\."):
        run(raw, tmp_path / "other", unloadable, engine="ray")


@pytest.mark.slow
def test_a_stage_that_cannot_begin_in_a_process_stops_all(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1")

    with pytest.raises(PreparationError, match=r"The stage unloadable cannot begin: its model is not there\."):
        run(raw, tmp_path / "out", recipe(Read(), Unloadable()))


@pytest.mark.slow
def test_a_process_that_is_killed_between_jobs_costs_nothing(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", *map(str, range(30)))
    killed: list[int] = []
    is_over = threading.Event()

    def kill_some() -> None:
        while not is_over.wait(0.3):
            if len(killed) < 2 and (children := worker_ids()):
                os.kill(children[0], 9)
                killed.append(children[0])

    thread = threading.Thread(target=kill_some)
    thread.start()
    try:
        account = run(raw, tmp_path / "out", recipe(Read(ReadSettings(seconds=0.1))))
    finally:
        is_over.set()
        thread.join()
    assert killed
    assert account.inputs == {"ok": 30}


def worker_ids() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


@pytest.mark.slow
def test_processes_end_with_who_started_them(tmp_path: Path) -> None:
    with PoolEngine([Read()], tmp_path, 2):
        pass
    assert worker_ids() == []


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "1")

    with pytest.raises(ConfigError, match="has one worker"):
        prepare(raw, tmp_path / "out", ALL, PrepareSettings(engine="serial", workers=2))
    with pytest.raises(ConfigError, match="goes with the engine ray"):
        prepare(raw, tmp_path / "out", ALL, PrepareSettings(ray_address="auto"))


def test_limits_grow_with_what_there_is_to_do() -> None:
    limits = Limits(seconds=10.0, per_second=2.0, bytes_per_second=100)

    assert limits.seconds_for(Record("a", "a", "video", start=1.0, end=4.0), None) == 16.0
    assert limits.seconds_for(Record("a", "a", "video"), Stamp("a", 1000, 0)) == 20.0


def test_a_job_given_while_a_process_leaves_is_not_lost(tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", "4")
    record = Record("a", str(raw / "000.mp4"), "video")
    process = WatchedProcess([Read()], tmp_path, None)
    try:
        process.give(Job("00", 0, 1, record, Limits()))
        process._take(Leaving())
        found: list[Finished] = []
        until = time.monotonic() + 60
        while not found and time.monotonic() < until:
            if process.pipe.poll(1):
                found = process.look()
    finally:
        process.stop()
    assert [each.status for each in found] == ["ok"]


def test_what_was_mended_stays_mended(tmp_path: Path) -> None:
    found = Finished("a", 0, "00", True, "ok")
    for name, each in (
        ("results-1-of-2", found),
        ("results", ended(Job("00", 0, 1, CLIP, Limits()), "crashed", "r", "r")),
    ):
        with Journal(tmp_path, name) as journal:
            journal.add(each, "s")
    with Journal(tmp_path) as journal:
        entry = journal.get("00")
    assert entry is not None
    assert entry.status == "ok"


def test_ray_has_no_more_actors_than_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    engine = RayEngine([Read()], tmp_path, 5, None, None)
    cluster = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: {"CPU": 2.0}, kill=lambda _: None)
    monkeypatch.setattr(engine, "_ray", cluster)
    monkeypatch.setattr(engine, "_new_actor", object)
    with engine:
        assert engine.room == 2


def test_an_address_where_nobody_answers_is_said_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
        for address in (there, f"ray://{there}", "auto", "local", "host:none"):
            check_reachable(address)
    for address in (there, f"ray://{there}"):
        with pytest.raises(PreparationError, match=f"Nobody answers at {address} .Connection refused"):
            check_reachable(address)
    with pytest.raises(PreparationError, match="or is silent"):
        check_reachable(f"{'a' * 70}.b:1")
    pytest.importorskip("ray", reason="Ray is not installed")
    raw = write_files(tmp_path / "raw", "1")
    with pytest.raises(PreparationError, match="Nobody answers"):
        prepare(raw, tmp_path / "out", ALL, PrepareSettings(engine="ray", ray_address=there))
