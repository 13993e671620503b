"""Processes of a service: what they need to start, and who looks after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.jobs.engines import wait_for

from muybridge.errors import ConfigError, StoreError
from muybridge.jobs import line_process, planner_process, ray_workers, worker_process
from muybridge.jobs import supervisor as supervisor_module
from muybridge.jobs.cleaning import Cleaner
from muybridge.jobs.planner import Planner
from muybridge.jobs.process_settings import ServiceSettings
from muybridge.jobs.record import Job, New
from muybridge.jobs.store import JobStore, Search
from muybridge.jobs.supervisor import Supervisor, checked_devices, devices_here

REQUEST = {
    "prompt": "a red circle moving left",
    "sampling": {"num_inference_steps": 1, "guidance_scale": 1.0, "seed": 1},
    "shape": {"num_frames": 2, "width": 32, "height": 32},
}


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return ServiceSettings(str(tmp_path / "jobs.db"), str(tmp_path / "files"), lease_seconds=10.0)


def test_no_torch_is_needed_to_keep_jobs() -> None:
    rooms = "store, files, catalog, resolving, worker, worker_process, supervisor, planner, cleaning, ray_workers"
    names = ", ".join(f"muybridge.jobs.{each.strip()}" for each in rooms.split(","))
    code = f"import sys, {names}; sys.exit(any(name in sys.modules for name in ('torch', 'fastapi', 'ray')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_go_through_a_pipe(settings: ServiceSettings) -> None:
    assert ServiceSettings.from_line(settings.to_line()) == settings


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert devices_here() == ["cuda:0", "cuda:1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices_here() == ["cpu"]
    assert checked_devices(["cuda:0", "cpu"]) == ["cuda:0", "cpu"]
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        checked_devices(["gpu"])


def test_a_process_that_cannot_start_is_tried_again_after_a_while(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[float] = []

    class Failing(subprocess.Popen[str]):
        def __init__(self, _: object, **values: object) -> None:
            started.append(0.0)
            super().__init__([sys.executable, "-S", "-c", "raise SystemExit(2)"], stdin=subprocess.PIPE, text=True)

    monkeypatch.setattr(supervisor_module.subprocess, "Popen", Failing)
    monkeypatch.setattr(supervisor_module, "_TICK_S", 0.01)
    monkeypatch.setattr(supervisor_module, "_FIRST_PAUSE_S", 0.05)
    supervisor = Supervisor(settings, ["cpu"])
    supervisor.start()
    wait_for(lambda: len(started) >= 3)
    supervisor.stop()
    assert supervisor._places[0].pause > 0.1


def test_a_worker_that_does_not_end_is_killed_and_its_job_given_back(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(subprocess.Popen[str]):
        def __init__(self, _: object, **values: object) -> None:
            code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
            pipe = subprocess.PIPE
            super().__init__([sys.executable, "-S", "-c", code], stdin=pipe, stdout=pipe, text=True)

    monkeypatch.setattr(supervisor_module.subprocess, "Popen", Deaf)
    store = settings.open_store()
    job = store.insert(New("me", REQUEST, "demo/animatediff"))
    supervisor = Supervisor(settings, ["cpu"])
    supervisor.start()
    (place,) = supervisor._places
    process = wait_for(lambda: place.process)
    assert process.stdout.readline() == "deaf\n"
    assert store.claim(place.worker_id, ()) is not None
    supervisor.stop(grace_seconds=0.2)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()
    assert (_now(store, job).status, _now(store, job).attempts) == ("queued", 0)
    store.close()


@pytest.mark.parametrize("error", [RuntimeError("of a kind that nobody thought of"), StoreError("away")])
def test_housekeeping_goes_on_after_an_error(
    settings: ServiceSettings, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[float] = []
    reaped: list[float] = []

    def clean(_: object) -> None:
        cleaned.append(time.monotonic())
        raise error

    def reap(_: object) -> list[Job]:
        reaped.append(time.monotonic())
        return []

    monkeypatch.setattr(supervisor_module, "_TICK_S", 0.01)
    monkeypatch.setattr(supervisor_module, "_AFTER_ERROR_S", 0.01)
    monkeypatch.setattr(Cleaner, "clean", clean)
    monkeypatch.setattr(JobStore, "reap", reap)
    supervisor = Supervisor(replace(settings, lease_seconds=0.03), [])
    supervisor.start()
    wait_for(lambda: len(reaped) >= 3)
    supervisor.stop()
    assert len(cleaned) == 1


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(settings: ServiceSettings) -> None:
    store = settings.open_store()
    jobs = [store.insert(New("me", REQUEST, "demo/animatediff")) for _ in range(3)]
    supervisor = Supervisor(settings, ["cpu"])
    supervisor.start()
    try:
        wait_for(lambda: _done(store) == 1, 240)
        (killed,) = supervisor.process_ids
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: _done(store) == 3, 240)
        assert supervisor.process_ids != [killed]
    finally:
        supervisor.stop()
    assert store.workers() == []
    assert {job.status for job in store.page()[0]} == {"completed"}
    assert max(_now(store, job).attempts for job in jobs) <= 2
    assert set(store.models()) == {"demo/animatediff", "demo/easyanimate"}
    assert {job.seed for job in store.page(Search())[0]} == {1}


class Answering(subprocess.Popen[str]):
    """In place of the planner's process: one that runs `code`."""

    code = ""

    def __init__(self, _: object, **values: object) -> None:
        pipe = subprocess.PIPE
        super().__init__([sys.executable, "-S", "-c", self.code], stdin=pipe, stdout=pipe, text=True)


def answering(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(Answering, "code", code)
    monkeypatch.setattr(line_process.subprocess, "Popen", Answering)


def test_a_planner_that_dies_is_not_waited_for(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "input(); input()")
    planner = Planner(settings, "cpu")
    began = time.monotonic()
    assert planner.cost(REQUEST) is None
    assert time.monotonic() - began < 10
    planner.close()


def test_a_planner_is_closed_while_it_is_asked(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "import time; time.sleep(60)")
    planner = Planner(settings, "cpu")
    asking = threading.Thread(target=planner.cost, args=(REQUEST,), daemon=True)
    asking.start()
    wait_for(lambda: planner._asked.process is not None)
    began = time.monotonic()
    planner.close()
    asking.join(10)
    assert time.monotonic() - began < 10
    assert not asking.is_alive()
    assert planner.cost(REQUEST) is None


def test_a_refusal_of_the_planner_is_not_kept(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(
        monkeypatch,
        "for _ in '123': input(); _ == '2' and print('{\"error\": \"no such file\"}', flush=True) "
        "or _ == '3' and print('{\"fits\": true}', flush=True)",
    )
    planner = Planner(settings, "cpu")
    with pytest.raises(ConfigError, match="no such file"):
        planner.cost(REQUEST)
    assert planner.cost(REQUEST) == {"fits": True}
    planner.close()


def test_a_planner_survives_what_it_cannot_tell(settings: ServiceSettings) -> None:
    class Failing:
        def cost(self, *_: object) -> None:
            raise ZeroDivisionError

    found = planner_process.answer(REQUEST, settings.open_catalog(), settings.open_files(), Failing())
    assert "ZeroDivisionError" in found["error"]


@pytest.mark.slow
def test_costs_are_told_by_a_process(settings: ServiceSettings) -> None:
    planner = Planner(settings, "cpu")
    try:
        cost = planner.cost(REQUEST)
        assert cost is not None
        assert cost["fits"]
        assert cost["peak_bytes"] > 0
        assert planner.cost({**REQUEST, "prompt": "another"}) is cost
        process = planner._asked.process
        assert process is not None
        process.send_signal(signal.SIGINT)  # as Ctrl+C does to all of a terminal
        with pytest.raises(ConfigError, match="multiple of 4"):
            planner.cost({**REQUEST, "shape": {"width": 33, "height": 33}})
        assert planner._asked.process is process
    finally:
        planner.close()


@pytest.mark.slow
def test_workers_on_a_ray_cluster(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="there is no ray here")
    from muybridge.jobs.ray_workers import RayWorkers

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    paths = os.pathsep.join(each for each in sys.path if each)
    monkeypatch.setenv("PYTHONPATH", paths)
    store = settings.open_store()
    for _ in range(4):
        store.insert(New("me", REQUEST, "demo/animatediff"))
    workers = RayWorkers(settings, num_cpus=1, object_store_memory=80 * 2**20)
    try:
        workers.start()
        wait_for(lambda: _done(store) == 1, 400)
        killed = workers.process_ids()
        os.kill(killed[0], signal.SIGKILL)
        wait_for(lambda: store.reap() is not None and _done(store) == 4, 400)
        assert workers.process_ids() != killed
        assert {job.status for job in store.page()[0]} == {"completed"}
        long = {**REQUEST, "sampling": {"num_inference_steps": 500, "guidance_scale": 1.0}}
        job = store.insert(New("me", long, "demo/animatediff"))
        wait_for(lambda: _now(store, job).step > 0, 60)
    finally:
        workers.stop()
    assert (_now(store, job).status, _now(store, job).attempts) == ("queued", 0)
    assert not any(each.is_alive for each in store.workers())


def test_a_worker_on_a_cluster_waits_for_its_store(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[str] = []

    def serve(_: object, *named: str) -> None:
        started.extend(named[:1])
        if len(started) == 3:
            working.stop()
        raise StoreError("the database is away")

    monkeypatch.setattr(worker_process, "serve", serve)
    monkeypatch.setattr(ray_workers, "_AGAIN_S", 0.001)
    working = ray_workers._RayWorker(settings.to_line(), "cpu")
    working.work()
    assert len(started) == 3
    assert "the database is away" in caplog.text


def _done(store: JobStore) -> int:
    return store.counts().by_status["completed"]


def _now(store: JobStore, job: Job) -> Job:
    found = store.get(job.id)
    assert found is not None
    return found
