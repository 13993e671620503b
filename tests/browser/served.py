"""`muybridge serve` and other commands in processes of their own, and calls of what is served."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 120
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class Service:
    """`muybridge serve` in a process of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": "application/json"} if data else {}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def ask(self, prompt: str, **sampling: Any) -> str:
        """Ask for a small video; gives its id."""
        settings = {"num_inference_steps": 2, "seed": 7, **sampling}
        return self.call("POST", "/v1/videos", {"request": {"prompt": prompt, "sampling": settings}})["id"]

    def wait(self, video: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a video is finished or has failed."""
        until = time.monotonic() + seconds
        while (job := self.call("GET", f"/v1/videos/{video}"))["status"] in ("queued", "in_progress"):
            assert time.monotonic() < until, job
            time.sleep(0.2)
        return job

    def content(self, video: str) -> bytes:
        """The file of a video."""
        with urllib.request.urlopen(f"{self.address}/v1/videos/{video}/content", timeout=60) as answer:
            return answer.read()

    def clear(self) -> None:
        """Remove all videos."""
        for job in self.call("GET", "/v1/videos?limit=100")["data"]:
            self.call("DELETE", f"/v1/videos/{job['id']}")


def started(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, with one thread, for the cores are shared."""
    command = [sys.executable, "-m", "muybridge.cli.main", *arguments]
    source = {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        command, env=os.environ | source | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run_to_its_end(*arguments: str) -> None:
    """A command, which must succeed."""
    process = started(*arguments)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """`muybridge serve` with its files in a folder; gives its address."""
    process = started("serve", "--port", "0", "--data", str(folder / "data"), *arguments, **environment)
    lines: list[str] = []
    found = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            if _ADDRESS.search(line):
                found.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert found.wait(START_S), "".join(lines)
        match = _ADDRESS.search("".join(lines))
        assert match is not None
        yield match[0]
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()
