"""Folders that appear complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from muybridge.errors import OutputError
from muybridge.files.new_folder import new_model_folder, replaced_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_folder_takes_the_place_of_the_one_that_is_there(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with replaced_folder(tmp_path / "model") as temporary:
            (temporary / name).touch()
            assert "second" not in names(tmp_path / "model")

    assert names(tmp_path) == ["model", "second"]


@pytest.mark.parametrize("place", [replaced_folder, new_model_folder])
@pytest.mark.parametrize(("failure", "raised"), [(OSError("no space"), OutputError), (ValueError(), ValueError)])
def test_what_fails_leaves_nothing(tmp_path: Path, place, failure, raised) -> None:
    def write() -> None:
        with place(tmp_path / "model") as temporary:
            (temporary / "part").touch()
            raise failure

    with pytest.raises(raised):
        write()

    assert names(tmp_path) == []


def test_a_new_model_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    with pytest.raises(OutputError, match="there already"), new_model_folder(tmp_path / "model"):
        pass

    assert names(tmp_path) == ["model"]
