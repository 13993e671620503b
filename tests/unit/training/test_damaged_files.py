"""Files that turn out damaged are said once, and listed for all processes of a stage together."""

from __future__ import annotations

from pathlib import Path

import pytest

from muybridge.data.record import Refusal
from muybridge.errors import OutputError
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


def test_nothing_is_written_without_a_folder_and_a_full_disk_is_said(tmp_path: Path) -> None:
    found = DamagedFiles()
    found(Refusal("a.mp4", "packets are damaged", "damaged"))
    assert damaged_files(tmp_path) == {}
    found.folder = tmp_path / "nowhere"
    with pytest.raises(OutputError, match="cannot be written"):
        found(Refusal("b.mp4", "packets are damaged", "damaged"))
