"""A service that is killed again and again while clients send jobs: does it lose, double or damage any?

    python benchmarks/service_chaos.py --jobs 1000 --clients 64 --kills 10 --output chaos.json
    python benchmarks/service_chaos.py --postgres --workers 2 ...

Starts `muybridge serve` on the demo model, lets clients send videos of two frames and one step over HTTP (each with an
Idempotency-Key, and again where the connection breaks), and kills the server and its workers with -9 at random. In the
end every job must be there once, completed, with one whole file that says the seed that its client asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from muybridge.jobs.files import FileStore
from muybridge.jobs.record import Job
from muybridge.jobs.store import JobStore, Search
from muybridge.video import read_request, read_video

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 2


@dataclass
class Setting:
    """What is tried.

    Attributes:
        postgres: URL of a database in place of SQLite.
        refusals: what clients were told that ended them.
    """

    folder: Path
    jobs: int = 1000
    clients: int = 64
    kills: int = 10
    workers: int = 1
    postgres: str | None = None
    port: int = 0
    refusals: list[str] = field(default_factory=list)

    @property
    def store(self) -> str:
        """Its address."""
        return self.postgres or str(self.folder / "jobs.db")


@dataclass
class Server:
    """A process of `muybridge serve` that can be killed and begun again."""

    setting: Setting
    process: subprocess.Popen[bytes] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, workers: int | None = None) -> None:
        """Begin, and wait until it answers."""
        count = self.setting.workers if workers is None else workers
        folder = self.setting.folder
        place = ["--data", str(folder), "--store", self.setting.store, "--files", str(folder / "files")]
        place += ["--port", str(self.setting.port)]
        with (self.setting.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "muybridge.cli.main", "serve", *place, "--workers", str(count), "--no-preview"],
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        while self.process.poll() is None:
            with contextlib.suppress(OSError):
                call(self.setting.port, "/health")
                return
            time.sleep(0.1)
        raise SystemExit(f"The server ended: {(self.setting.folder / 'log').read_text()[-2000:]}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the process, rudely unless said otherwise."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()


def call(port: int, path: str, body: dict[str, Any] | None = None, key: str | None = None) -> dict[str, Any]:
    """One call of the API; raises OSError where it does not answer."""
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def send(port: int, seed: int, accepted: dict[int, set[str]]) -> None:
    """Send one job until it is taken in; what was accepted under a key is noted each time."""
    body = {
        "prompt": f"a red circle moving left, number {seed}",
        "model": "demo/animatediff",
        "size": "32x32",
        "num_frames": FRAMES,
        "num_inference_steps": 1,
        "guidance_scale": 1,
        "seed": seed,
    }
    while True:
        try:
            accepted[seed].add(call(port, "/v1/videos", body, f"job-{seed}")["id"])
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise
            time.sleep(0.5)
        except OSError:
            time.sleep(0.2)
        else:
            return


def clients(setting: Setting, accepted: dict[int, set[str]]) -> list[threading.Thread]:
    """Threads that send all jobs, each its share."""

    def run(first: int) -> None:
        try:
            for seed in range(first, setting.jobs, setting.clients):
                send(setting.port, seed, accepted)
        except urllib.error.HTTPError as error:
            setting.refusals.append(f"{error.code}: {error.read().decode(errors='replace')}")

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(setting.clients)]
    for each in threads:
        each.start()
    return threads


def done_in(store: JobStore) -> int:
    """How many jobs are over."""
    counts = store.counts().by_status
    return counts["completed"] + counts["failed"]


def go_on(setting: Setting) -> None:
    """Ends the trial where a client was refused, as the count of jobs would be waited for in vain."""
    if setting.refusals:
        raise SystemExit(f"A client was refused: {setting.refusals[0]}")


def kill_now_and_then(setting: Setting, server: Server, store: JobStore, seed: int) -> list[dict[str, Any]]:
    """Kill the server or a worker at random moments that are spread over the work."""
    chance = random.Random(seed)
    at = sorted(chance.randrange(1, max(2, int(setting.jobs * 0.95))) for _ in range(setting.kills))
    killed = []
    for number, count in enumerate(at):
        while done_in(store) < count:
            go_on(setting)
            time.sleep(0.02)
        time.sleep(chance.random() * 0.5)
        if number % 2 == 0:
            what, pids = "server", [server.process.pid] if server.process is not None else []
        else:
            what, pids = "worker", busy_workers(store)[:1]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.append({"what": what, "after_jobs": count})
        if what == "server":
            server.kill()
            server.start()
    return killed


def busy_workers(store: JobStore) -> list[int]:
    """Processes of workers that are at a job; waits for one."""
    while True:
        found = [each.pid for each in store.workers() if each.is_alive and each.state == "busy"]
        if found:
            return found
        time.sleep(0.05)


def all_jobs(store: JobStore) -> Iterator[Job]:
    """Every row."""
    after: str | None = None
    while True:
        page, more = store.page(Search(), after, 500, "asc")
        yield from page
        if not more:
            return
        after = page[-1].id


def verdict(setting: Setting, store: JobStore, accepted: dict[int, set[str]]) -> dict[str, Any]:
    """Count what is lost, doubled or damaged."""
    files = FileStore.open(str(setting.folder / "files"))
    rows = list(all_jobs(store))
    by_seed = Counter(job.seed for job in rows)
    completed = [job for job in rows if job.status == "completed"]
    half = [job.id for job in completed if not is_whole(files, job)]
    folders = {each.name: len(list(each.iterdir())) for each in (setting.folder / "files" / "results").iterdir()}
    return {
        "rows": len(rows),
        "completed": len(completed),
        "failed": Counter(job.error_code for job in rows if job.status == "failed"),
        "lost": sum(1 for seed in range(setting.jobs) if by_seed[seed] == 0) + len(rows) - len(completed),
        "duplicated": sum(1 for count in by_seed.values() if count > 1)
        + sum(1 for ids in accepted.values() if len(ids) != 1)
        + sum(1 for count in folders.values() if count > 1),
        "half_files": len(half) + len(list(setting.folder.rglob("*.part"))),
        "files_without_a_job": len(folders.keys() - {job.id for job in completed}),
        "second_attempts": sum(1 for job in rows if job.attempts > 1),
        "third_attempts": sum(1 for job in rows if job.attempts > 2),
        "database_is_whole": setting.postgres is not None or is_sqlite_whole(store),
    }


def is_whole(files: FileStore, job: Job) -> bool:
    """Whether all files of a job are there, and its video is the one that was asked for."""
    path = files.local_result(job.results["video"])
    request = read_request(path) or {}
    stills = all(files.size(job.results[variant]) > 0 for variant in ("thumbnail", "spritesheet"))
    return stills and len(read_video(path)) == FRAMES and request["sampling"]["seed"] == job.seed


def is_sqlite_whole(store: JobStore) -> bool:
    """As SQLite judges."""
    with store._database.read() as connection:
        return connection.execute(text("pragma integrity_check")).scalar_one() == "ok"


def wait_until_done(setting: Setting, store: JobStore, server: Server, seconds: float) -> None:
    """Until all jobs are over; says how it goes."""
    until, said = time.monotonic() + seconds, 0.0
    while (done := done_in(store)) < setting.jobs and time.monotonic() < until:
        if server.process is not None and server.process.poll() is not None:
            raise SystemExit("The server ended by itself.")
        go_on(setting)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"{done} of {setting.jobs} done", flush=True)
        time.sleep(0.2)


def killed_while_working(setting: Setting, seed: int, seconds: float) -> dict[str, Any]:
    """Clients, kills, and what is left in the end."""
    server = Server(setting)
    started = time.monotonic()
    server.start()
    store = JobStore.open(setting.store)
    accepted: dict[int, set[str]] = {number: set() for number in range(setting.jobs)}
    threads = clients(setting, accepted)
    try:
        killed = kill_now_and_then(setting, server, store, seed)
        for each in threads:
            each.join()
        wait_until_done(setting, store, server, seconds)
        time.sleep(2)  # who was late removes what it has left
        took = time.monotonic() - started
    finally:
        server.kill(signal.SIGTERM)
    found = {"seconds": round(took, 1), "killed": killed, **verdict(setting, store, accepted)}
    store.close()
    return found


def restarted_with_a_queue(setting: Setting, seconds: float) -> dict[str, Any]:
    """Jobs are taken in without a worker, the server is killed, and the next one does them all."""
    server = Server(setting)
    server.start(workers=0)
    store = JobStore.open(setting.store)
    accepted: dict[int, set[str]] = {number: set() for number in range(setting.jobs)}
    try:
        for each in clients(setting, accepted):
            each.join()
        queued = store.counts().by_status["queued"]
        server.kill()
        server.start()
        wait_until_done(setting, store, server, seconds)
    finally:
        server.kill(signal.SIGTERM)
    found = {"queued_at_restart": queued, **verdict(setting, store, accepted)}
    store.close()
    return found


def free_port() -> int:
    """One that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def tried(arguments: argparse.Namespace, postgres: str | None) -> dict[str, Any]:
    """Both trials, in folders of their own."""
    found: dict[str, Any] = {
        "what": f"demo/animatediff, {FRAMES} frames of 32x32, 1 step, over HTTP",
        "store": "sqlite" if postgres is None else "postgresql",
        "workers": arguments.workers,
        "jobs": arguments.jobs,
        "clients": arguments.clients,
        "kills": arguments.kills,
        "cpu_count": os.cpu_count(),
        "load_average_at_start": round(os.getloadavg()[0], 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        common = (arguments.clients, arguments.kills, arguments.workers, postgres, free_port())
        if arguments.jobs:
            setting = Setting(Path(folder) / "killed", arguments.jobs, *common)
            setting.folder.mkdir()
            found["killed"] = killed_while_working(setting, arguments.seed, arguments.seconds)
        if arguments.queued:
            if postgres is not None:
                empty(postgres)
            setting = Setting(Path(folder) / "queued", arguments.queued, *common)
            setting.folder.mkdir()
            found["restart"] = restarted_with_a_queue(setting, arguments.seconds)
    return found


def empty(url: str) -> None:
    """Begin with a database that has no tables."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")


def main() -> None:
    """Try it, and print or write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--queued", type=int, default=200, help="of the second trial")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of this machine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=7200.0, help="to wait for the last job")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.postgres:
        sys.path.insert(0, str(ROOT))
        from tests.postgres import running

        with running() as server:
            found = tried(arguments, f"{server}/postgres")
    else:
        found = tried(arguments, None)
    line = json.dumps(found, indent=2)
    print(line)
    if arguments.output is not None:
        arguments.output.write_text(line + "\n")
    bad = [found[trial][name] for trial in ("killed", "restart") if trial in found for name in ("lost", "duplicated")]
    sys.exit(any(bad) or any(found[trial]["half_files"] for trial in ("killed", "restart") if trial in found))


if __name__ == "__main__":
    main()
