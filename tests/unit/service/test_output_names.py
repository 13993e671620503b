"""Files named after prompts."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import NoReturn

import pytest

from muybridge.errors import OutputError
from muybridge.service.output_names import name_after, reserved_file


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A red circle, moving left!", "a-red-circle-moving-left"),
        ("Красный круг", "красный-круг"),
        ("红圆 向左移动", "红圆-向左移动"),
        ("हिन्दी में", "हिन्दी-में"),
        ("cafe\u0301", "café"),
        ("../etc/a\\b\x00:c", "etc-a-b-c"),
        ("", "video"),
        ("🔥!", "video"),
        ("CON", "video-con"),
        ("lpt1", "video-lpt1"),
        ("console", "console"),
        ("a\udc80b", "a-b"),
    ],
)
def test_names(prompt: str, expected: str) -> None:
    assert name_after(prompt) == expected


@pytest.mark.parametrize("letter", ["a", "я", "红", "𐎀"])
def test_long_prompts_fit_every_file_system(letter: str, tmp_path: Path) -> None:
    name = name_after(letter * 500)
    assert 30 <= len(name) <= 60
    assert len(name.encode()) <= 120
    (tmp_path / f"{name}.mp4").touch()


def test_a_name_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").write_text("x")
    Path("a-2.mp4").mkdir()
    Path("a-3.mp4").touch()  # left by a run that was killed

    with reserved_file("A") as first, reserved_file("a") as second:
        assert (first.name, second.name) == ("a-3.mp4", "a-4.mp4")
        assert first.exists()
        other = Path("other.part")
        other.write_text("video")
        other.replace(first)
        with reserved_file("a") as third:
            assert third.name == "a-5.mp4"

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.mp4", "a-3.mp4", "a.mp4"]
    assert Path("a.mp4").read_text() == "x"


def test_nothing_stays_when_the_block_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError), reserved_file("a"):
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(*_: object) -> NoReturn:
        asked.append(number)
        if len(asked) > 2:
            pytest.fail("It goes on looking for a name.")
        raise OSError(number, os.strerror(number))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    Path("a.mp4").write_text("x")

    with reserved_file("a") as path:
        assert path.name == "a-2.mp4"

    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError), reserved_file("a"):
        pass
