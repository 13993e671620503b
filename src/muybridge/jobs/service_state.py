"""What a store says of the service itself: its workers, and what its models can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import delete, insert, select, update

from muybridge.jobs import tables
from muybridge.jobs.database import Database
from muybridge.jobs.record import WorkerState
from muybridge.types import SettingsDict, SettingsView

_FORGET_WORKERS_S = 86_400.0


class ServiceState:
    """The part of a `JobStore` that is not about jobs."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        """Of an opened database."""
        self._database = database
        self._lease = lease_seconds

    def beat_worker(self, state: WorkerState) -> None:
        """Say that a worker is there, and what it does."""
        columns = tables.workers.c
        with self._database.quiet_write() as connection:
            now = self._database.now(connection)
            values: SettingsDict = {
                **{name: getattr(state, name) for name in ("device", "host", "pid", "state", "job")},
                "loaded": list(state.loaded),
                "seen": now,
                "beat": self._database.lease_clock(connection),
            }
            changed = connection.execute(update(tables.workers).where(columns.id == state.id).values(values)).rowcount
            if not changed:
                connection.execute(insert(tables.workers).values(id=state.id, started=now, **values))
                # Those of days ago are of no interest to anybody.
                connection.execute(delete(tables.workers).where(columns.seen < now - _FORGET_WORKERS_S))

    def remove_worker(self, worker: str) -> None:
        """It has ended as it should."""
        with self._database.quiet_write() as connection:
            connection.execute(delete(tables.workers).where(tables.workers.c.id == worker))

    def workers(self) -> list[WorkerState]:
        """All that have been seen in the last day."""
        with self._database.read() as connection:
            now = self._database.lease_clock(connection)
            rows = connection.execute(select(tables.workers).order_by(tables.workers.c.started)).all()
        found = []
        for row in rows:
            values: SettingsDict = {name: value for name, value in row._mapping.items() if name != "beat"}
            is_alive = 0 <= now - row.beat <= self._lease
            found.append(replace(WorkerState(**{**values, "loaded": tuple(row.loaded)}), is_alive=is_alive))
        return found

    def set_models(self, descriptions: Mapping[str, SettingsView]) -> None:
        """Say what models can do, in place of what was said before."""
        rows = [{"name": name, "description": dict(each)} for name, each in descriptions.items()]
        with self._database.quiet_write() as connection:
            connection.execute(delete(tables.models))
            if rows:
                connection.execute(insert(tables.models), rows)

    def models(self) -> dict[str, SettingsDict]:
        """What models can do, by name."""
        with self._database.read() as connection:
            return {row.name: row.description for row in connection.execute(select(tables.models)).all()}

    def check_writable(self) -> None:
        """Make a change that changes nothing.

        Raises:
            StoreError: none can be made.
        """
        with self._database.quiet_write() as connection:
            connection.execute(
                update(tables.meta).where(tables.meta.c.name == "version").values(value=tables.meta.c.value)
            )
