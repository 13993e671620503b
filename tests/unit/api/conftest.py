"""A service over a real store in a folder, without workers: tests do what a worker would."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from muybridge.api.app import create_app
from muybridge.api.settings import ApiSettings
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import FileStore
from muybridge.jobs.record import Job, Outcome, WorkerState
from muybridge.jobs.stills import write_stills
from muybridge.jobs.store import JobStore
from muybridge.video import Video

WORKER = "worker-1"


@dataclass
class Service:
    """A service, a client of it, and what a worker would do."""

    store: JobStore
    files: FileStore
    client: TestClient
    folder: Path

    def begin(self) -> Job:
        """A worker takes the next job."""
        job = self.store.claim(WORKER)
        assert job is not None
        return job

    def finish(self, job: Job | None = None, num_frames: int = 4) -> Job:
        """A worker makes the next job, or one that it has."""
        job = job or self.begin()
        frames = np.random.default_rng(0).integers(0, 255, (num_frames, 32, 48, 3), np.uint8)
        path = Video(frames, 8.0, {"prompt": "a"}).save(self.folder / f"{job.id}.mp4")
        stills = write_stills(path, num_frames, self.folder)
        keys = {name: self.files.put_result(job, name, each) for name, each in {"video": path, **stills}.items()}
        outcome = Outcome(keys, 48, 32, num_frames, 8.0, 7, 1.5, {"denoise": 1.0, "decode": 0.5}, 100.0)
        assert self.store.finish(job.id, WORKER, outcome, 3600.0)
        found = self.store.get(job.id)
        assert found is not None
        return found

    def live(self) -> None:
        """A worker is there."""
        self.store.beat_worker(WorkerState(WORKER, "cpu", "here", 1, "idle"))


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes services; all of a test share the folder."""
    opened: list[Any] = []

    def make(base_url: str = "http://localhost:7860", page: Path | None = None, **settings: Any) -> Service:
        store = JobStore.open(str(tmp_path / "jobs.db"))
        files = FileStore.open(str(tmp_path / "files"))
        app = create_app(ApiSettings(**settings), store, files, Catalog.scan(None), page=page)
        client = TestClient(app, base_url=base_url, raise_server_exceptions=False)
        client.__enter__()
        opened.extend([(client.__exit__, (None, None, None)), (store.close, ())])
        return Service(store, files, client, tmp_path)

    yield make
    for close, arguments in opened:
        close(*arguments)


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """A service that asks nobody."""
    return make_service()


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A png."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
