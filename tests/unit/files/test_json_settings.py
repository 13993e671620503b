"""JSON files with one object."""

from __future__ import annotations

from pathlib import Path

import pytest

from muybridge.errors import CheckpointError, InputFileError
from muybridge.files.json_settings import read_json_object


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "größer"}', encoding="utf-8")

    assert read_json_object(tmp_path / "config.json", "the settings of a model") == {"name": "größer"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "config.json cannot be read: it is not JSON. Get it again."),
        (b'{"a": "\xff"}', "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[1]", "config.json holds a list, not the settings of a model. Get it again."),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(CheckpointError) as caught:
        read_json_object(tmp_path / "config.json", "the settings of a model")

    assert message in str(caught.value)


def test_the_caller_says_which_error_it_is_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("3")
    with pytest.raises(InputFileError, match=r"holds a int, not a record. Delete it."):
        read_json_object(tmp_path / "a.json", "a record", InputFileError, "Delete it.")
    with pytest.raises(InputFileError, match=r"none.json cannot be read \(No such file"):
        read_json_object(tmp_path / "none.json", "a record", InputFileError)
