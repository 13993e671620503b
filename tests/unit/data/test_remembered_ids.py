"""Ids of files are found out once, and anew when a file is another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from muybridge.data.record import ContentIds
from muybridge.data.remembered_ids import RememberedIds


def settled(path: Path, content: bytes, seconds_ago: int = 60) -> Path:
    path.write_bytes(content)
    os.utime(path, (path.stat().st_atime - seconds_ago, path.stat().st_mtime - seconds_ago))
    return path


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    found: list[str] = []
    plain = ContentIds.__call__

    def counted(self: ContentIds, media: str, *rest: object) -> str:
        found.append(media)
        return plain(self, media, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ContentIds, "__call__", counted)
    monkeypatch.setattr("muybridge.data.remembered_ids._SETTLED_NS", -1_000_000_000)  # times of inodes cannot be set
    return found


def test_a_file_is_read_once(tmp_path: Path, readings: list[str]) -> None:
    path = settled(tmp_path / "a.mp4", b"abc")
    asked = (str(path), {}, 0.0, None)
    first = RememberedIds(tmp_path / "cache")(*asked)
    assert first == ContentIds()(*asked)
    readings.clear()
    assert RememberedIds(tmp_path / "cache")(*asked) == first
    assert readings == []
    part = RememberedIds(tmp_path / "cache")(str(path), {}, 1.0, 2.0)
    assert part != first
    settled(path, b"abd", seconds_ago=120)  # as long as before
    assert RememberedIds(tmp_path / "cache")(*asked) == ContentIds()(*asked) != first


def test_what_was_just_written_is_not_remembered(
    tmp_path: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muybridge.data.remembered_ids._SETTLED_NS", 3_000_000_000)
    path = settled(tmp_path / "a.mp4", b"abc")
    for _ in range(2):
        RememberedIds(tmp_path / "cache")(str(path), {}, 0.0, None)
    assert len(readings) == 2


@pytest.mark.usefixtures("readings")
def test_without_a_folder_or_with_a_broken_one(tmp_path: Path) -> None:
    path = settled(tmp_path / "a.mp4", b"abc")
    asked = (str(path), {}, 0.0, None)
    expected = ContentIds()(*asked)
    (tmp_path / "file").write_text("")
    assert RememberedIds(tmp_path / "file")(*asked) == expected
    broken = RememberedIds(tmp_path / "cache")
    broken.path.parent.mkdir()
    broken.path.write_text("no database, and long enough to see that")
    assert broken(*asked) == RememberedIds(tmp_path / "cache")(*asked) == expected


def test_a_folder_of_pictures_is_looked_at_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "0000.png").write_bytes(b"a")
    ids = RememberedIds(tmp_path / "cache")
    first = ids(str(folder), {}, 0.0, None)
    (folder / "0001.png").write_bytes(b"b")
    assert RememberedIds(tmp_path / "cache")(str(folder), {}, 0.0, None) != first


def test_what_is_damaged_begins_anew(tmp_path: Path, readings: list[str]) -> None:
    path = settled(tmp_path / "a.mp4", b"abc")
    asked = (str(path), {}, 0.0, None)
    ids = RememberedIds(tmp_path / "cache")
    ids.path.parent.mkdir()
    ids.path.write_text("no database, and long enough to see that" * 100)
    for _ in range(3):
        RememberedIds(tmp_path / "cache")(*asked)
    assert len(readings) == 2
