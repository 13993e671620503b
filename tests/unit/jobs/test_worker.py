from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.unit.jobs.engines import NumberEngine, Small, Told, wait_for

from muybridge.errors import (
    CheckpointError,
    ConfigError,
    InputFileError,
    NonFiniteError,
    OutputError,
    ShapeError,
    StoreError,
)
from muybridge.jobs import worker as worker_module
from muybridge.jobs.attempt import Attempt
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import About, FileStore
from muybridge.jobs.record import Job, New, Redo
from muybridge.jobs.store import JobStore
from muybridge.jobs.worker import Worker, WorkerSettings
from muybridge.video import read_request, read_video

MODEL = "demo/animatediff"


class Service:
    """A store, files and a worker over an engine of numbers."""

    def __init__(self, folder: Path) -> None:
        self.store = JobStore.open(str(folder / "jobs.db"))
        self.files = FileStore.open(str(folder / "files"))
        self.engine = NumberEngine()
        self.catalog = Catalog.scan(None)
        self.worker = self.new_worker()

    def new_worker(self, name: str = "w") -> Worker:
        settings = WorkerSettings("cpu", name, keep_seconds=1000)
        return Worker(self.store, self.files, self.catalog, self.engine, settings)

    def insert(self, request: dict[str, Any] | None = None, **values: Any) -> Job:
        return self.store.insert(New("me", {"prompt": "a", **(request or {})}, MODEL, **values))

    def now(self, job: Job) -> Job:
        found = self.store.get(job.id)
        assert found is not None
        return found


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(worker_module, "_TICK_S", 0.01)
    made = Service(tmp_path)
    yield made
    made.store.close()


def test_a_job_becomes_files(service: Service) -> None:
    job = service.insert({"sampling": {"seed": 7}})
    assert service.worker.run_one()
    assert not service.worker.run_one()
    done = service.now(job)
    assert (done.status, done.progress, done.num_frames, done.width, done.height) == ("completed", 100, 3, 24, 16)
    assert (done.seed, done.fps, done.peak_memory_mb, done.stage_seconds) == (7, 8.0, 1.0, {"denoise": 0.0})
    assert done.expires is not None
    assert done.inference_time_s is not None
    assert set(done.results) == {"video", "thumbnail", "spritesheet"}
    video = service.files.local_result(done.results["video"])
    assert len(read_video(video)) == 3
    for variant, size in (("thumbnail", (24, 16)), ("spritesheet", (72, 16))):
        with Image.open(service.files.local_result(done.results[variant])) as picture:
            assert picture.size == size
    assert service.files.preview(job.id) == b"preview 2"
    left = {each.name for each in (video.parents[3]).rglob("*") if each.is_file()}
    assert left == {"video.mp4", "thumbnail.webp", "spritesheet.jpg", f"{job.id}.webp"}


def test_a_file_says_what_it_was_made_from_in_the_names_of_its_client(service: Service) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (24, 16)).save(picture, "png")
    picture.seek(0)
    upload = service.files.put_upload(picture, About("picture", ".png", "me"), 0.0)
    keyframes = {"kind": "keyframes", "pictures": {"0": upload.id}}
    job = service.insert({"conditions": [keyframes]}, uploads=(upload.id,))
    service.worker.run_one()
    made = service.engine.runs[0]["request"]
    assert made.conditions[0].pictures[0] == str(service.files.local_upload(upload.id))
    recorded = read_request(service.files.local_result(service.now(job).results["video"]))
    assert recorded is not None
    assert recorded["conditions"][0]["pictures"] == {"0": upload.id}


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("steps must be 1"), "invalid_value", "steps must be 1"),
        (ShapeError("wrong size"), "invalid_value", "wrong size"),
        (InputFileError("/srv/secret/files/a.png is damaged"), "input_unreadable", "a file of the service is damaged"),
        (CheckpointError("/models/x is cut short"), "internal", "a file of the service is cut short"),
        (NonFiniteError("NaN at step 3"), "non_finite", "NaN at step 3"),
        (OutputError("the disk is full"), "internal", "the disk is full"),
        (MemoryError(), "out_of_memory", "too little memory"),
        (ZeroDivisionError("/srv/secret"), "internal", "ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_has_a_code_and_is_not_begun_again(
    service: Service, error: Exception, code: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise error

    service.engine.before_step = fail
    job = service.insert()
    with caplog.at_level(logging.CRITICAL):
        service.worker.run_one()
    failed = service.now(job)
    assert (failed.status, failed.error_code, failed.attempts) == ("failed", code, 1)
    assert says in (failed.error_message or "")
    assert "/" not in (failed.error_message or "")
    assert service.worker.is_spoilt == isinstance(error, MemoryError)
    assert not service.worker.run_one()
    assert service.files.jobs_with_files() == set()


def test_what_nobody_has_costed_is_refused_by_the_worker(service: Service) -> None:
    service.engine.most_frames = 8
    large = service.insert({"shape": {"num_frames": 9}})
    assert service.worker.run_one()
    refused = service.now(large)
    assert (refused.status, refused.error_code) == ("failed", "out_of_memory")
    assert refused.error_message == "This needs more memory than the device of this worker has. 8 frames would fit."
    assert service.engine.runs == []
    again = service.insert({"prompt": "another", "shape": {"num_frames": 9}, "sampling": {"seed": 3}})
    small = service.insert({"shape": {"num_frames": 8}})
    known = service.insert({"shape": {"num_frames": 2}}, cost={"fits": True})
    for _ in range(3):
        assert service.worker.run_one()
    assert [service.now(each).status for each in (again, small, known)] == ["failed", "completed", "completed"]
    assert [each.shape.num_frames for each in service.engine.planned] == [9, 8]
    assert [run["inputs"] is None for run in service.engine.runs] == [False, True]
    assert service.now(small).cost == {"fits": True, "least": None}


def test_a_store_that_is_away_while_a_cost_is_noted(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StoreError("the database is away")

    job = service.insert()
    monkeypatch.setattr(service.store, "note_cost", away)
    assert service.worker.run_one()
    assert (service.now(job).status, service.now(job).cost) == ("completed", None)


def test_what_is_cancelled_before_it_is_costed_is_not_costed(service: Service) -> None:
    job = service.insert()
    open_files = service.engine.open

    def cancelled_meanwhile(request: Any) -> str:
        service.store.cancel(job.id)
        service.worker._attempt.tick()  # type: ignore[union-attr]
        return open_files(request)

    service.engine.open = cancelled_meanwhile  # type: ignore[method-assign]
    assert service.worker.run_one()
    assert (service.now(job).error_code, service.engine.planned) == ("cancelled", [])


def test_a_model_that_is_gone(service: Service, tmp_path: Path) -> None:
    service.catalog = Catalog({"models": {MODEL: str(tmp_path / "gone")}})
    job = service.insert()
    service.new_worker().run_one()
    failed = service.now(job)
    assert (failed.error_code, failed.error_message) == (
        "not_found",
        f"The model {MODEL!r} is not there any more. Choose another.",
    )


def test_a_full_disk_while_a_result_is_put_in_place(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    job = service.insert()
    service.worker.run_one()
    monkeypatch.undo()
    failed = service.now(job)
    assert (failed.status, failed.error_code) == ("failed", "internal")
    assert "No space left" in (failed.error_message or "")
    assert service.files.jobs_with_files() == set()
    service.store.retry(job.id)
    service.worker.run_one()
    assert service.now(job).status == "completed"


def running(service: Service, job: Job, at_step: Callable[[], None]) -> None:
    """Run the worker in a thread until the job is no longer its; `at_step` is called once, in the middle of it."""
    reached, go_on = threading.Event(), threading.Event()

    def wait(step: int) -> None:
        if step == 1:
            reached.set()
            go_on.wait(20)

    service.engine.before_step = wait
    service.engine.steps = 50
    thread = threading.Thread(target=service.worker.run)
    thread.start()
    assert reached.wait(20)
    at_step()
    attempt = service.worker._attempt
    assert attempt is not None
    wait_for(lambda: attempt.is_cancelled or attempt.is_lost or attempt.is_stopping)
    go_on.set()
    wait_for(lambda: service.worker._attempt is None)
    service.worker.stop()
    thread.join()
    assert service.worker._attempt is None
    assert service.now(job).step < 50


def test_cancelling_ends_it_within_a_step(service: Service) -> None:
    job = service.insert()
    running(service, job, lambda: service.store.cancel(job.id) and None)
    assert service.now(job).error_code == "cancelled"
    assert service.files.jobs_with_files() == set()


def test_stopping_gives_the_job_back(service: Service) -> None:
    job = service.insert()
    running(service, job, service.worker.stop)
    back = service.now(job)
    assert (back.status, back.attempts, back.worker, back.step) == ("queued", 0, None, 0)
    assert service.store.workers() == []


def test_who_lost_a_job_leaves_nothing(service: Service) -> None:
    job = service.insert()
    (other,) = [service.new_worker("other")]

    def lose() -> None:
        service.store.abandon("w")
        taken = service.store.claim("other")
        assert taken is not None
        assert taken.attempts == 2

    running(service, job, lose)
    assert service.now(job).worker == "other"
    assert not (service.files._cache / "work" / job.id / "1").exists()
    assert other is not service.worker


def test_results_of_an_attempt_that_died_are_removed_by_the_next(service: Service) -> None:
    job = service.insert()
    first = service.store.claim("dead")
    assert first is not None
    half = service.files.work_folder(first) / "video.mp4"
    half.write_bytes(b"whole, but nobody was told")
    service.files.put_result(first, "video", half)
    service.store.abandon("dead")
    service.worker.run_one()
    done = service.now(job)
    assert done.attempts == 2
    assert "/2/" in done.results["video"]
    (folder,) = (service.files._cache / "results" / job.id).iterdir()
    assert folder.name == "2"


def test_segments_are_kept_and_made_anew(service: Service) -> None:
    service.engine.segments = 2
    job = service.insert()
    service.worker.run_one()
    assert service.files.has_segments(job.id)
    again = service.insert(redo=Redo(job.id, (1,), True), remixed_from=job.id)
    service.worker.run_one()
    assert service.now(again).status == "completed"
    assert service.engine.runs[1]["redo"] == (1,)
    assert service.engine.runs[1]["following"]
    service.files.remove(job.id)
    lost = service.insert(redo=Redo(job.id, (1,)))
    service.worker.run_one()
    assert service.now(lost).error_code == "not_found"


def test_segments_move_on_together(service: Service) -> None:
    attempt = Attempt(service.store, service.files, service.insert(), "w")
    shown = []
    for segment in range(3):
        for phase, step in (("denoise", 1), ("denoise", 2), ("decode", 2), ("write", 2)):
            attempt.report(Told(phase, 2 * segment + step, 6, segment, 3))
            assert attempt._progress is not None
            shown.append(attempt._progress.progress)
    assert shown == sorted(shown)
    assert (shown[3], shown[-1]) == (36, 99)


def test_previews_are_made_beside_the_steps(service: Service) -> None:
    encoded: list[str] = []

    class Slow:
        def webp(self) -> bytes:
            encoded.append("picture")
            raise ZeroDivisionError

    service.insert()
    job = service.store.claim("w")
    assert job is not None
    service.files.work_folder(job)
    attempt = Attempt(service.store, service.files, job, "w")
    attempt.report(Told("denoise", 1, 3, preview=Slow))
    assert encoded == []
    attempt.tick()
    assert encoded == ["picture"]
    attempt.report(Told("denoise", 2, 3, preview=lambda: Small(2)))
    attempt.tick()
    assert service.files.preview(job.id) == b"preview 2"
    assert service.now(job).preview_step == 2


def test_a_worker_says_what_it_does(service: Service) -> None:
    job = service.insert()
    seen: list[Any] = []
    running(service, job, lambda: seen.append(wait_for(lambda: _busy(service))) or service.worker.stop())
    assert (seen[0].job, seen[0].loaded, seen[0].device) == (job.id, (MODEL,), "cpu")


def _busy(service: Service) -> Any:
    return next((each for each in service.store.workers() if each.state == "busy" and each.loaded), None)
