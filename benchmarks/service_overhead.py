"""What the service adds to a video: beside a direct call of a warm engine, alternately, with the same request.

    python benchmarks/service_overhead.py --jobs 20 --out benchmarks/results/service-overhead.json

Also the first byte of the page, and the memory of the process that answers clients.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from muybridge.request import GenerateRequest
from muybridge.service.engine import Engine

REQUEST = {
    "prompt": "a red circle moving left",
    "shape": {"num_frames": 8, "width": 64, "height": 64},
    "sampling": {"num_inference_steps": 4, "seed": 7},
}
_URL = re.compile(r"http://\S+")


@dataclass(frozen=True)
class Running:
    """A service that runs.

    Attributes:
        url: of it.
        pid: of the process that answers.
        start_s: until it answered.
    """

    url: str
    pid: int
    start_s: float


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Running]:
    """`muybridge serve` with one worker on the processor."""
    command = [sys.executable, "-m", "muybridge.cli.main", "serve", "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--data", str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline() if process.stdout else ""
        try:
            found = _URL.search(line)
            if found is None:
                raise SystemExit(f"The service does not start: {line}")
            yield Running(found[0], process.pid, time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait(60)


def resident_mb(pid: int) -> float:
    """Memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def timed(action: Any) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def wait_until_ready(http: httpx2.Client) -> None:
    """Until a worker is alive."""
    until = time.monotonic() + 300
    while http.get("/ready").status_code != 200 and time.monotonic() < until:
        time.sleep(0.5)


def make(http: httpx2.Client, events: Iterator[str]) -> dict[str, Any]:
    """Ask for a video, hear by the stream of events that it is there, and fetch it; gives it with its time."""
    started = time.perf_counter()
    video = http.post("/v1/videos", json={"request": REQUEST}).json()["id"]
    asked = time.perf_counter()
    for line in events:
        if line.startswith("data: ") and f'"id": "{video}"' in line and '"status": "completed"' in line:
            break
    heard = time.perf_counter()
    content = http.get(f"/v1/videos/{video}/content")
    content.raise_for_status()
    ended = time.perf_counter()
    found = http.get(f"/v1/videos/{video}").json()
    times = {"asked_s": asked - started, "fetched_s": ended - heard, "wall_s": ended - started}
    return {**times, "inference_s": found["inference_time_s"]}


def measure(jobs: int) -> dict[str, Any]:
    """All figures."""
    request = GenerateRequest.parse(REQUEST)
    engine = Engine("cpu")
    # One after the other: the client is of the service that runs.
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder, "data")) as running:  # noqa: SIM117
        with httpx2.Client(base_url=running.url, timeout=300) as http:
            idle = resident_mb(running.pid)
            first_bytes = [timed(lambda: http.get("/").raise_for_status()) for _ in range(20)]
            wait_until_ready(http)
            output = Path(folder, "direct.mp4")
            engine.run(request, output)
            with http.stream("GET", "/v1/events") as stream:
                events = stream.iter_lines()
                make(http, events)
                direct, served = [], []
                for _ in range(jobs):
                    direct.append(timed(lambda: engine.run(request, output)))
                    served.append(make(http, events))
            after = resident_mb(running.pid)
    return {
        "jobs": jobs,
        "request": REQUEST,
        "direct_s": _spread(direct),
        "served_s": _spread([each["wall_s"] for each in served]),
        "overhead_ms": _spread([1000 * (each["wall_s"] - one) for each, one in zip(served, direct, strict=True)]),
        "beside_engine_ms": _spread([1000 * (each["wall_s"] - each["inference_s"]) for each in served]),
        "asking_ms": _spread([1000 * each["asked_s"] for each in served]),
        "fetching_ms": _spread([1000 * each["fetched_s"] for each in served]),
        "page_first_byte_ms": _spread([1000 * each for each in first_bytes]),
        "start_s": running.start_s,
        "api_rss_mb": {"idle": idle, "after": after},
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))], 3),
        "least": round(ordered[0], 3),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = measure(given.jobs)
    text = json.dumps(found, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
