"""A real service with the shipped models, and a browser that tells of everything that goes wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from tests.browser.served import Service, serving

CHROMIUM = Path("/usr/bin/chromium")
TIMEOUT_MS = 60_000


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    models = folder / "models"
    for name in ("loras/ink", "motion_adapters/gentle"):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / f"{name}.safetensors").write_bytes(b"")
    with serving(folder, "--models", str(models), "--device", "cpu") as address:
        yield Service(address)


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


class Devices:
    """Opens the page on devices of their own."""

    def __init__(self, address: str, browser: Any) -> None:
        self.watch = Watch(address)
        self._browser = browser
        self._contexts: list[Any] = []

    def __call__(self, width: int = 1280, height: int = 900, **options: Any) -> Any:
        usual = {"locale": "en-GB", "reduced_motion": "reduce"}
        context = self._browser.new_context(viewport={"width": width, "height": height}, **{**usual, **options})
        context.set_default_timeout(TIMEOUT_MS)
        self._contexts.append(context)
        page = context.new_page()
        self.watch.follow(page)
        page.goto(self.watch.address)
        page.wait_for_selector("html[data-ready]")
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def pages(service: Service, browser: Any) -> Iterator[Devices]:
    """Opens pages; afterwards nothing has gone to another host, and nothing has gone wrong in any of them."""
    devices = Devices(service.address, browser)
    yield devices
    devices.close()
    assert devices.watch.foreign == []
    assert devices.watch.complaints == []


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
