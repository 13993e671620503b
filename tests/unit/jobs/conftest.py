from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import postgres

from muybridge.jobs.store import JobStore

_numbers = itertools.count()


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
    server = request.getfixturevalue("postgres_server")
    return postgres.new_database(server, f"test_{next(_numbers)}")


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
