"""A real service with the shipped models, and a browser that tells of everything that goes wrong in it."""

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
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

CHROMIUM = Path("/usr/bin/chromium")
REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 120
TIMEOUT_MS = 60_000
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

    def clear(self) -> None:
        """Remove all videos."""
        for job in self.call("GET", "/v1/videos?limit=100")["data"]:
            self.call("DELETE", f"/v1/videos/{job['id']}")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    if address := os.environ.get("MUYBRIDGE_PAGE_URL"):
        yield Service(address)
        return
    folder = tmp_path_factory.mktemp("service")
    models = folder / "models"
    for name in ("loras/ink", "motion_adapters/gentle"):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / f"{name}.safetensors").write_bytes(b"")
    command = [sys.executable, "-m", "muybridge.cli.main", "serve", "--port", "0", "--data", str(folder / "data")]
    command += ["--models", str(models), "--device", "cpu"]
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY / "src"),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    found = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            if _ADDRESS.search(line):
                found.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert found.wait(START_S), "".join(lines)
        match = _ADDRESS.search("".join(lines))
        assert match is not None
        yield Service(match[0])
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"])


class Watch:
    """What a page called, and what it complained of."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def follow(self, page: Any) -> None:
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(f"{error}\n{error.stack}"))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        place = message.location.get("url", "")
        # A preview may be gone in the moment in which its video is finished; chromium reports every 404 itself.
        is_late_preview = "variant=preview" in place
        # What the service refuses, the page says in words; chromium reports the 400 too.
        is_refusal = "status of 400" in message.text and "/v1/" in place
        if message.type in ("error", "warning") and not is_late_preview and not is_refusal:
            self.complaints.append(f"{message.text} {place}")

    @property
    def foreign(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))]


@pytest.fixture
def pages(service: Service, browser: Any) -> Iterator[Any]:
    """Opens the page on a device of its own; afterwards nothing went to another host and nothing went wrong."""
    watch = Watch(service.address)
    contexts: list[Any] = []

    def opened(width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": height}, **{"locale": "en-GB", "reduced_motion": "reduce", **options}
        )
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        watch.follow(page)
        page.goto(service.address)
        page.wait_for_selector("html[data-ready]")
        return page

    opened.watch = watch
    yield opened
    for context in contexts:
        context.close()
    assert watch.foreign == []
    assert watch.complaints == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of 64x64 with a circle each."""
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for place, colour in ((8, "red"), (20, "green"), (32, "blue")):
        image = Image.new("RGB", (64, 64), "#808080")
        ImageDraw.Draw(image).ellipse((place, 20, place + 24, 44), fill=colour)
        found.append(folder / f"{colour}.png")
        image.save(found[-1])
    return found
