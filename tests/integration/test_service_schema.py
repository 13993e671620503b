"""Calls made up from the description of the API: whatever comes, the service does not fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from muybridge.api.app import create_app
from muybridge.api.settings import ApiSettings
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import FileStore
from muybridge.jobs.record import Limits
from muybridge.jobs.store import JobStore

schemathesis = pytest.importorskip("schemathesis")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much)
MAY_FAIL = {503, 504}
"""No worker is alive, and nobody makes the video that is waited for."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("schema")
    store = JobStore.open(str(folder / "jobs.db"))
    own = ApiSettings(sync_seconds=0.01, hosts=("*",), queue=Limits(10**6, 10**6))
    app = create_app(own, store, FileStore.open(str(folder / "files")), Catalog.scan(None))
    # Streams do not end by themselves.
    yield schemathesis.openapi.from_asgi("/openapi.json", app).exclude(path_regex="events$")
    store.close()


def test_no_call_makes_it_fail(described: Any) -> None:
    for found in described.get_all_operations():
        strategy = found.ok().as_strategy()

        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        @given(case=strategy)
        def check(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code in MAY_FAIL, answer.text
            if answer.status_code >= 400 and case.method != "HEAD":
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

        check()
