from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from muybridge.cli import console
from muybridge.cli.main import main
from muybridge.cli.service_flags import places
from muybridge.errors import ConfigError
from muybridge.jobs.files import FileStore
from muybridge.jobs.record import Failure, Job, New, Outcome, Progress, WorkerState
from muybridge.jobs.store import JobStore


class Folder:
    """Of a service with jobs of every kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = JobStore.open(str(path / "jobs.db"))
        self.files = FileStore.open(str(path / "files"))
        for text in ("a finished one", "a failed one", "one at work", "one that waits for a very long time indeed"):
            self.store.insert(New("me", {"prompt": text}, "demo/animatediff", text=text))
        self.done, self.failed, self.busy = (self._claimed() for _ in range(3))
        self.store.finish(self.done.id, "w", Outcome({}, 64, 48, 16, 8.0, 7, 1.25, {"load": 0.5}))
        self.store.fail(self.failed.id, "w", Failure("non_finite", "NaN at step 3"))
        self.store.beat(self.busy.id, "w", Progress("denoise", 3, 12, progress=30, eta_seconds=9.4))
        (self.waiting,) = self.store.queue()

    def _claimed(self) -> Job:
        job = self.store.claim("w")
        assert job is not None
        return job


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["jobs", *arguments])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said.out if code == 0 else said.err


def test_list(folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.output, "_width", 160)  # it reads COLUMNS only where it is made
    shown = run(capsys, "list", "--data", str(folder.path))
    assert shown.index(folder.waiting.id[:14]) < shown.index(folder.done.id[:14])
    for text in ("in_progress 30 %", "non_finite", "1.2 s", "step 3 of 12, 9 s left", "long time ind…"):
        assert text in shown
    assert shown.endswith("1 queued, 1 in_progress, 1 completed, 1 failed; 0 workers\n")
    only = json.loads(run(capsys, "list", "--data", str(folder.path), "--status", "failed", "--json"))
    assert [job["id"] for job in only["jobs"]] == [folder.failed.id]


def test_show_takes_the_beginning_of_an_id(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(run(capsys, "show", folder.done.id[:20], "--data", str(folder.path), "--json"))
    assert (shown["id"], shown["seed"], shown["stage_seconds"]) == (folder.done.id, 7, {"load": 0.5})
    assert "NaN at step 3" in run(capsys, "show", folder.failed.id, "--data", str(folder.path))
    assert "more than one job" in run(capsys, "show", "video_", "--data", str(folder.path), code=2)
    assert "no job 'video_x'" in run(capsys, "show", "video_x", "--data", str(folder.path), code=2)


def test_cancel_and_retry(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", str(folder.path))
    assert "failed" in run(capsys, "cancel", folder.waiting.id, *data)
    assert "with its next step" in run(capsys, "cancel", folder.busy.id, *data)
    assert "queued" in run(capsys, "retry", folder.failed.id, *data)
    assert "only one that failed" in run(capsys, "retry", folder.done.id, *data, code=2)


def test_clean(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", str(folder.path))
    assert "removed 0 jobs" in run(capsys, "clean", *data)
    removed = json.loads(run(capsys, "clean", *data, "--older-than", "0", "--json"))
    assert removed["jobs"] == [folder.done.id, folder.failed.id]
    assert folder.store.counts().by_status == {"queued": 1, "in_progress": 1, "completed": 0, "failed": 0}


def test_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no service has run there" in run(capsys, "list", "--data", str(tmp_path), code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--store", "--files"])
def test_a_store_is_never_cleaned_with_files_of_another(
    folder: Folder, flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MUYBRIDGE_STORE", "MUYBRIDGE_FILES"):
        monkeypatch.delenv(name, raising=False)
    elsewhere = {"--store": str(folder.path / "empty.db"), "--files": str(folder.path / "files")}[flag]
    said = run(capsys, "clean", "--data", str(folder.path), flag, elsewhere, code=2)
    assert "give both --store and --files" in said


def test_a_service_takes_both_places_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MUYBRIDGE_FILES", raising=False)
    monkeypatch.setenv("MUYBRIDGE_STORE", "postgresql://db/muybridge")
    with pytest.raises(ConfigError, match="Only the store was given"):
        places(tmp_path, None, None)
    assert places(None, None, "/shared") == ("postgresql://db/muybridge", "/shared")
    monkeypatch.delenv("MUYBRIDGE_STORE")
    assert places(tmp_path, None, None) == (str(tmp_path / "jobs.db"), str(tmp_path / "files"))


def test_a_cluster_says_which_devices_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    places_of = ("--store", str(tmp_path / "jobs.db"), "--files", str(tmp_path / "files"))
    with pytest.raises(SystemExit) as ended:
        main(["worker", *places_of, "--device", "cpu", "--ray-address", "auto"])
    assert ended.value.code == 2
    assert "--device is about workers here" in " ".join(capsys.readouterr().err.split())


def test_workers(folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.output, "_width", 160)
    data = ("--data", str(folder.path))
    assert json.loads(run(capsys, "workers", *data, "--json")) == []
    assert "No worker of this machine is alive" in run(capsys, "workers", *data, "--here", code=2)
    folder.store.beat_worker(WorkerState("w1", "cuda:0", "elsewhere", 7, "busy", folder.busy.id, ("demo/animatediff",)))
    assert "No worker of this machine is alive" in run(capsys, "workers", *data, "--here", code=2)
    folder.store.beat_worker(WorkerState("w2", "cpu", socket.gethostname(), 8, "idle"))
    shown = run(capsys, "workers", *data)
    for text in ("elsewhere", "cuda:0", "busy", folder.busy.id[:14], "demo/animatediff", "idle"):
        assert text in shown
    (here,) = json.loads(run(capsys, "workers", *data, "--here", "--json"))
    assert (here["id"], here["state"]) == ("w2", "idle")
