"""Checkpoints: whole or not there, checked when read, and limited in number."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from muybridge.errors import CheckpointError
from muybridge.training.checkpoints import MANIFEST_FILE, STATE_FILE, Checkpoint, Checkpoints, has_checkpoint


def write(checkpoints: Checkpoints, step: int) -> Path:
    folder = checkpoints.begin(step)
    (folder / "inner").mkdir()
    (folder / "state.pt").write_bytes(b"weights" * step)
    (folder / "inner" / "part").write_bytes(b"part")
    checkpoints.finish(step, {"step": step, "settings": {"rate": 0.1, "names": ("a", "b")}})
    return checkpoints.folder / f"step-{step}"


def step_of(found: Checkpoint) -> int:
    return found.facts["step"]


def test_the_newest_is_found_and_the_oldest_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    (tmp_path / STATE_FILE).write_text("of an older version")
    assert has_checkpoint(tmp_path)
    for step in (1, 2, 10):
        write(checkpoints, step)
    assert checkpoints.steps() == [10, 2]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-10", "step-2"]
    found: Any = checkpoints.newest(lambda each: each)
    assert found.facts == {"step": 10, "settings": {"rate": 0.1, "names": ["a", "b"]}}
    assert (found.folder / "state.pt").read_bytes() == b"weights" * 10
    assert not (tmp_path / STATE_FILE).exists()
    assert has_checkpoint(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("state.pt", cut, r"state.pt has 20 of 21 bytes"),
        ("state.pt", flip, "state.pt was changed"),
        ("inner/part", Path.unlink, "part is missing"),
        (MANIFEST_FILE, cut, "manifest.json is no JSON"),
        (MANIFEST_FILE, Path.unlink, "manifest.json is missing"),
        (
            MANIFEST_FILE,
            lambda path: path.write_text(path.read_text().replace('"step": 3', '"step": 4')),
            "was changed",
        ),
        (MANIFEST_FILE, lambda path: path.write_text("[]"), "was changed"),
    ],
)
def test_a_broken_one_is_named_and_the_one_before_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Any, reason: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 2)
    damage(write(checkpoints, 3) / name)
    with caplog.at_level(logging.WARNING, logger="muybridge"):
        assert checkpoints.newest(step_of) == 2
    (line,) = caplog.messages
    assert reason in line
    assert line.endswith("going on from step-2.")
    write(checkpoints, 2)  # the broken one is of no use any more
    assert checkpoints.steps() == [2]


def test_where_all_are_broken_it_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    cut(write(checkpoints, 2) / "state.pt")
    with pytest.raises(CheckpointError, match=r"step-2 is damaged .*delete this one to start anew"):
        checkpoints.newest(step_of)
    assert Checkpoints(tmp_path / "new").newest(step_of) is None


def test_what_a_killed_program_left_is_not_looked_at_and_goes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    (checkpoints.begin(2) / "state.pt").write_bytes(b"half")
    assert checkpoints.newest(step_of) == 1
    write(checkpoints, 3)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-1", "step-3"]


def test_one_that_cannot_be_written_says_which_is_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "There is none before it" in str(checkpoints.unwritten(error))
    write(checkpoints, 7)
    assert "(No space left on device). The one of step 7 is kept" in str(checkpoints.unwritten(error))
    assert "the disk may be full" in str(checkpoints.unwritten(RuntimeError("unexpected pos")))


def test_a_manifest_is_for_people_too(tmp_path: Path) -> None:
    manifest = json.loads((write(Checkpoints(tmp_path), 1) / MANIFEST_FILE).read_text())
    assert manifest["files"]["inner/part"]["size"] == 4
    assert len(manifest["files"]["state.pt"]["sha256"]) == 64
