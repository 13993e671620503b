"""Files that turn out damaged are said once, and listed for all processes of a stage together."""

from __future__ import annotations

from pathlib import Path

import pytest

from muybridge.data.record import Refusal
from muybridge.training.damaged_files import DAMAGED_FILE, DamagedFiles, damaged_files


def test_each_is_said_once_and_processes_share_the_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = DamagedFiles(), DamagedFiles()
    first.folder = second.folder = tmp_path
    for process, name in ((first, "a.mp4"), (second, "b.mp4"), (first, "a.mp4"), (second, "a.mp4")):
        process(Refusal(name, "packets are damaged", "damaged"))

    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["a.mp4", "b.mp4", "a.mp4"]
    with (tmp_path / DAMAGED_FILE).open("a") as lines:
        lines.write('{"file": "c.')  # a process was killed just then
    assert damaged_files(tmp_path) == {"a.mp4": "packets are damaged", "b.mp4": "packets are damaged"}


def test_a_list_that_cannot_be_written_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = DamagedFiles()
    found(Refusal("a.mp4", "packets are damaged", "damaged"))
    assert damaged_files(tmp_path) == {}
    (tmp_path / "file").touch()
    found.folder = tmp_path / "file" / "below"
    found(Refusal("b.mp4", "packets are damaged", "damaged"))
    assert "cannot be written: Not a directory" in caplog.text
    found.folder = tmp_path / "new"
    found(Refusal("c.mp4", "packets are damaged", "damaged"))
    assert list(damaged_files(tmp_path / "new")) == ["c.mp4"]
