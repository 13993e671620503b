from __future__ import annotations

from pathlib import Path

import pytest

from muybridge.errors import StoreError
from muybridge.jobs.store import JobStore


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://here/name", "is no store"),
        ("sqlite://", "is no store"),
        ("nonsense://", "no"),
        ("sqlite:////proc/nothing/jobs.db", "cannot be made"),
        ("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1", "cannot be used"),
    ],
)
def test_places_that_are_none(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        JobStore.open(url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"nothing of that kind" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        JobStore.open(str(path))


def test_a_password_is_not_shown() -> None:
    with pytest.raises(StoreError) as error:
        JobStore.open("postgresql://me:secret@127.0.0.1:1/none?connect_timeout=1")
    assert "secret" not in str(error.value)
