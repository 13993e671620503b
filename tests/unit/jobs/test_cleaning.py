from __future__ import annotations

import io
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from muybridge.errors import NotFoundError
from muybridge.jobs.cleaning import Cleaner
from muybridge.jobs.files import About, FileStore
from muybridge.jobs.record import Job, New, Outcome, Redo
from muybridge.jobs.store import JobStore


class Kept:
    def __init__(self, folder: Path) -> None:
        self.store = JobStore.open(str(folder / "jobs.db"))
        self.files = FileStore.open(str(folder / "files"))
        self.day = self.steady = 1e9

    def cleaner(self, most_bytes: int | None = None, keep_seconds: float | None = None) -> Cleaner:
        clocks = (lambda: self.day, lambda: self.steady)
        return Cleaner(self.store, self.files, most_bytes, clocks, keep_seconds)

    def finished(self, folder: Path, keep: float | None = None, uploads: tuple[str, ...] = ()) -> Job:
        self.store.insert(New("me", {}, "m", uploads=uploads))
        job = self.store.claim("w")
        assert job is not None
        made = folder / "made.mp4"
        made.write_bytes(b"x" * 100)
        key = self.files.put_result(job, "video", made)
        self.store.finish(job.id, "w", Outcome({"video": key}, 1, 1, 1, 1.0, 1, 1.0, {}), keep)
        return job

    def upload(self, created: float = 0.0, size: int = 1) -> str:
        return self.files.put_upload(io.BytesIO(b"x" * size), About("picture", ".png", "me"), created).id


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_what_is_expired_goes_with_its_files(kept: Kept, tmp_path: Path) -> None:
    shared, own = kept.upload(), kept.upload()
    old = kept.finished(tmp_path, -1.0, (shared, own))
    stays = kept.finished(tmp_path, 1000.0)
    waits = kept.store.insert(New("me", {}, "m", uploads=(shared,)))
    cleaned = kept.cleaner().clean()
    assert cleaned.jobs == (old.id,)
    assert [each.id for each in kept.files.uploads()] == [shared]
    assert kept.files.jobs_with_files() == {stays.id}
    assert kept.store.get(waits.id) is not None


def test_what_has_no_time_of_its_own_goes_after_that_of_the_service(kept: Kept, tmp_path: Path) -> None:
    cancelled = kept.store.insert(New("me", {}, "m"))
    kept.store.cancel(cancelled.id)
    done = kept.finished(tmp_path)
    waits = kept.store.insert(New("me", {}, "m"))
    assert kept.cleaner(keep_seconds=1000.0).clean().jobs == ()
    assert set(kept.cleaner(keep_seconds=0.0).clean().jobs) == {cancelled.id, done.id}
    assert kept.store.get(waits.id) is not None


def test_what_is_being_made_anew_needs_its_source(kept: Kept, tmp_path: Path) -> None:
    source, other = kept.finished(tmp_path, -1.0), kept.finished(tmp_path, -1.0)
    again = kept.store.insert(New("me", {}, "m", redo=Redo(source.id, (1,))))
    cleaner = kept.cleaner(most_bytes=0, keep_seconds=0.0)
    assert cleaner.clean().jobs == (other.id,)
    kept.store.cancel(again.id)
    assert set(cleaner.clean().jobs) == {source.id, again.id}


def test_no_more_goes_than_the_quota_asks_for(kept: Kept, tmp_path: Path) -> None:
    own, shared = (kept.upload(kept.day, 1000) for _ in range(2))
    jobs = [kept.finished(tmp_path, uploads=(each,)) for each in (own, shared, shared, own)]
    own_jobs = [kept.finished(tmp_path, uploads=(kept.upload(kept.day, 1000),)) for _ in range(2)]
    assert kept.cleaner(kept.files.usage() - 150).clean().jobs == (jobs[0].id, jobs[1].id)
    assert kept.cleaner(kept.files.usage() - 500).clean().jobs == (jobs[2].id,)
    assert kept.cleaner(kept.files.usage() - 500).clean().jobs == (jobs[3].id,)
    assert kept.cleaner(kept.files.usage() - 500).clean().jobs == (own_jobs[0].id,)


def test_beyond_the_quota_the_oldest_go(kept: Kept, tmp_path: Path) -> None:
    jobs = [kept.finished(tmp_path) for _ in range(4)]
    running = kept.store.insert(New("me", {}, "m"))
    kept.store.claim("w")
    assert kept.cleaner(250).clean().jobs == (jobs[0].id, jobs[1].id)
    assert kept.cleaner(250).clean().jobs == ()
    assert kept.cleaner(0).clean().jobs == (jobs[2].id, jobs[3].id)
    assert kept.store.get(running.id) is not None


def test_uploads_of_none_go_after_a_day(kept: Kept) -> None:
    new, _ = kept.upload(kept.day - 1000), kept.upload(kept.day - 1e6)
    needed = kept.upload(kept.day - 1e6)
    kept.store.insert(New("me", {}, "m", uploads=(needed,)))
    kept.cleaner().clean()
    assert {each.id for each in kept.files.uploads()} == {new, needed}


def test_files_of_jobs_long_gone_go(kept: Kept, tmp_path: Path) -> None:
    job = kept.finished(tmp_path)
    kept.store.delete(job.id)
    assert kept.cleaner().clean().remains == (job.id,)
    assert kept.files.jobs_with_files() == set()


def test_what_was_left_unfinished_goes_after_a_day(kept: Kept) -> None:
    whole = kept.files.upload(kept.upload(kept.day))
    assert whole is not None
    folder = Path(kept.files._at("uploads"))
    names = (f".{'0' * 16}.part", f"upload_{'0' * 32}.png", f".{'1' * 16}.part", f"upload_{'1' * 32}.png")
    for each in names:
        (folder / each).write_bytes(b"half")
    day_ago = time.time() - 90_000
    for each in (*names[:2], f"{whole.id}.png", f"{whole.id}.json"):
        os.utime(folder / each, (day_ago, day_ago))
    kept.cleaner().clean()
    assert {each.name for each in folder.iterdir()} == {*names[2:], f"{whole.id}.png", f"{whole.id}.json"}


def test_what_a_worker_left_that_was_killed_at_the_very_end_goes(kept: Kept, tmp_path: Path) -> None:
    waits = kept.store.insert(New("me", {}, "m", priority=-1))
    done = kept.finished(tmp_path)
    (tmp_path / "early.mp4").write_bytes(b"x")
    early = kept.files.put_result(replace(done, attempts=0), "video", tmp_path / "early.mp4")
    for each in (done, waits):
        kept.files.work_folder(each)
    kept.cleaner().clean()
    assert kept.files.jobs_with_work() == {waits.id}
    with pytest.raises(NotFoundError):
        kept.files.size(early)
    assert kept.files.size(f"results/{done.id}/1/video.mp4") == 100


def test_nothing_goes_while_the_clock_has_just_jumped(kept: Kept, tmp_path: Path) -> None:
    kept.finished(tmp_path, -1.0)
    cleaner = kept.cleaner()
    kept.day += 1e7
    assert cleaner.clean().jobs == ()
    kept.day, kept.steady = kept.day + 4000, kept.steady + 4000
    assert len(cleaner.clean().jobs) == 1


def test_copies_that_nobody_asks_for_go(kept: Kept, tmp_path: Path) -> None:
    kept.files = FileStore.open(f"memory://{tmp_path.name}", tmp_path / "cache")
    idle, used = (kept.files.local_upload(kept.upload(created=kept.day)) for _ in range(2))
    earlier = time.time() - 90_000
    for each in (idle, used):
        os.utime(each, (earlier, earlier))
    assert kept.files.local_upload(used.stem) == used
    kept.cleaner().clean()
    assert (idle.exists(), used.exists()) == (False, True)
    assert kept.files.local_upload(idle.stem).read_bytes() == b"x"
