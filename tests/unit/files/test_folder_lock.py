"""One program at a time in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from muybridge.errors import OutputError
from muybridge.files.folder_lock import LOCK_FILE, locked_folder


def test_a_second_one_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    with locked_folder(tmp_path, "trains"):
        with (
            pytest.raises(OutputError, match=rf"Another program trains in the folder .* \(process {os.getpid()}\)"),
            locked_folder(tmp_path, "trains"),
        ):
            pass
        assert (tmp_path / LOCK_FILE).is_file()
    assert list(tmp_path.iterdir()) == []
    with locked_folder(tmp_path, "trains"):
        pass


def test_the_file_of_a_killed_program_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("12345")
    with locked_folder(tmp_path, "trains"):
        assert (tmp_path / LOCK_FILE).read_text() == str(os.getpid())


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked_folder(tmp_path, "trains"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="takes no files"), locked_folder(tmp_path / "missing", "trains"):
        pass
