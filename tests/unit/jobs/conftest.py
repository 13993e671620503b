from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import postgres

from muybridge.jobs.store import JobStore


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    if not postgres.is_there():
        pytest.skip("there is no PostgreSQL here")
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return postgres.emptied(request.getfixturevalue("postgres_server"))


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., JobStore]]:
    """Opens the store, as often as asked."""
    stores: list[JobStore] = []

    def open_it(lease_seconds: float = 30.0) -> JobStore:
        stores.append(JobStore.open(url, lease_seconds))
        return stores[-1]

    yield open_it
    for each in stores:
        each.close()


@pytest.fixture
def store(opened: Callable[..., JobStore]) -> JobStore:
    return opened()
