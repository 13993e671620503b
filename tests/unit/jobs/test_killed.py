"""Workers that are killed in the middle of it, again and again: nothing is lost, doubled or damaged."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from muybridge.errors import StoreError
from muybridge.jobs.cleaning import Cleaner
from muybridge.jobs.files import FileStore
from muybridge.jobs.record import New
from muybridge.jobs.store import JobStore, Search
from muybridge.video import read_request, read_video

NUM_JOBS, NUM_KILLS = 200, 8
PROGRAM = Path(__file__).with_name("number_worker.py")


class Workers:
    """Processes, of which one at a time is killed and begun again."""

    def __init__(self, url: str, folder: Path, count: int) -> None:
        self._arguments = [sys.executable, str(PROGRAM), url, str(folder)]
        self._processes = [self._new() for _ in range(count)]

    def _new(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._arguments)

    def kill_one(self, index: int) -> None:
        process = self._processes[index % len(self._processes)]
        process.kill()
        process.wait()
        self._processes[index % len(self._processes)] = self._new()

    def end(self) -> None:
        for each in self._processes:
            each.kill()
            each.wait()


def send(url: str, seeds: range) -> None:
    store = JobStore.open(url, lease_seconds=5.0)
    for seed in seeds:
        new = New("me", {"prompt": "a", "sampling": {"seed": seed}}, "demo/animatediff", idempotency_key=str(seed))
        first, again = store.insert(new), store.insert(new)
        assert first.id == again.id
    store.close()


@pytest.mark.slow
def test_no_job_is_lost_doubled_or_damaged(url: str, tmp_path: Path) -> None:
    store, files = JobStore.open(url, lease_seconds=5.0), FileStore.open(str(tmp_path / "files"))
    clients = [threading.Thread(target=send, args=(url, range(first, NUM_JOBS, 16))) for first in range(16)]
    workers = Workers(url, tmp_path / "files", 2)
    chance = random.Random(0)
    try:
        for each in clients:
            each.start()
        for number in range(NUM_KILLS):
            wait_until_done(store, NUM_JOBS * (number + 1) // (NUM_KILLS + 2))
            time.sleep(chance.random() * 0.2)
            workers.kill_one(number)
        wait_until_done(store, NUM_JOBS)
        for each in clients:
            each.join()
    finally:
        workers.end()
    Cleaner(store, files).clean()  # the last kill may have come between the end of a job and its tidying up
    check(store, files, NUM_JOBS)
    assert list(tmp_path.rglob("*.part")) == []
    store.close()


def wait_until_done(store: JobStore, count: int) -> None:
    until = time.monotonic() + 600
    while store.counts().by_status["completed"] < count:
        assert time.monotonic() < until
        store.reap()
        time.sleep(0.02)


def check(store: JobStore, files: FileStore, num_jobs: int) -> None:
    rows = [job for page in pages(store) for job in page]
    assert Counter(job.seed for job in rows) == dict.fromkeys(range(num_jobs), 1)
    assert {job.status for job in rows} == {"completed"}
    assert max(job.attempts for job in rows) <= 3
    assert files.jobs_with_files() >= {job.id for job in rows}
    for job in rows:
        path = files.local_result(job.results["video"])
        assert (read_request(path) or {})["sampling"]["seed"] == job.seed
        assert len(read_video(path)) == 3
        assert [each.name for each in path.parents[1].iterdir()] == [str(job.attempts)]


def pages(store: JobStore) -> list[list]:
    found, after = [], None
    while True:
        page, more = store.page(Search(), after, 100, "asc")
        found.append(page)
        if not more:
            return found
        after = page[-1].id


def test_two_processes_may_share_a_file(tmp_path: Path) -> None:
    url = str(tmp_path / "jobs.db")
    stores = [JobStore.open(url) for _ in range(2)]
    threads = [threading.Thread(target=insert_some, args=(store,)) for store in stores for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert stores[0].counts().by_status["queued"] == 80
    assert len({job.number for job in stores[1].queue()}) == 80
    for each in stores:
        each.close()


def insert_some(store: JobStore) -> None:
    for _ in range(10):
        store.insert(New("me", {}, "m"))


def test_a_store_that_goes_away_is_an_error_of_ours(tmp_path: Path) -> None:
    store = JobStore.open(str(tmp_path / "jobs.db"))
    with store._database.quiet_write() as connection:
        connection.exec_driver_sql("drop table jobs")
    with pytest.raises(StoreError, match="cannot be used"):
        store.insert(New("me", {}, "m"))
    store.close()
