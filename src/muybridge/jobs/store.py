"""Where jobs are kept: the one truth about them, for as many processes as there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from muybridge.errors import ConfigError
from muybridge.jobs import queue_order, tables
from muybridge.jobs.admitting import check_room, of_key
from muybridge.jobs.database import Database, News, open_database
from muybridge.jobs.record import (
    Beat,
    Failure,
    Job,
    Limits,
    New,
    Outcome,
    Progress,
    Redo,
    new_job_id,
)
from muybridge.jobs.rows import job_of, jobs_of, values_of
from muybridge.jobs.service_state import ServiceState
from muybridge.jobs.turns import CANCELLED, FRESH, reaped
from muybridge.types import SettingsDict, SettingsView

LEASE_S = 30.0
"""How long a worker may be silent before its job is given to another."""
_FORGET_REMOVED_S = 86_400.0
_UPLOADS_AT_ONCE = 200
"""Named in one query; SQLite takes expressions that are a thousand deep, and no more."""
_j = tables.jobs.c
_OVER = ("completed", "failed")


@dataclass(frozen=True)
class Counts:
    """How many jobs there are of each status, and for how long the oldest that waits has waited."""

    by_status: Mapping[str, int]
    oldest_queued_seconds: float


@dataclass(frozen=True)
class Search:
    """Which jobs of a list are wanted; None for all. The status `over` is that of jobs that are completed or failed."""

    owner: str | None = None
    status: str | None = None
    model: str | None = None
    text: str | None = None


class JobStore(ServiceState):
    """Jobs in a database; safe to be used by threads and processes at once."""

    def __init__(self, database: Database, lease_seconds: float = LEASE_S) -> None:
        """Of an opened database; see `open`."""
        super().__init__(database, lease_seconds)

    @classmethod
    def open(cls, url: str, lease_seconds: float = LEASE_S) -> JobStore:
        """Open a store, which is made where there is none, and migrated after a copy where it is an older one.

        Args:
            url: `sqlite:///PATH` or a path, on a local disk; or `postgresql://...`.
            lease_seconds: how long a worker may be silent; the same for all that use a store.

        Raises:
            StoreError: it cannot be opened, or is one of a newer version.
        """
        return cls(open_database(url), lease_seconds)

    @property
    def lease_seconds(self) -> float:
        """How long a worker may be silent."""
        return self._lease

    def close(self) -> None:
        """Give connections back."""
        self._database.close()

    def news(self) -> News:
        """Something to wait for changes with; to be closed, and for one thread."""
        return self._database.news()

    # ------------------------------------------------------------------ asking

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """A job; None where there is none, or where it is another owner's."""
        with self._database.read() as connection:
            return _found(connection, job_id, owner)

    def page(
        self,
        search: Search | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> tuple[list[Job], bool]:
        """Jobs in the order in which they came, newest first by default, and whether there are more.

        Raises:
            ConfigError: there is no job `after`.
        """
        search = search or Search()
        with self._database.read() as connection:
            query = select(tables.jobs).where(*_wanted(search))
            if after is not None:
                found = _found(connection, after, search.owner)
                if found is None:
                    raise ConfigError(f"after: there is no video {after!r}.")
                query = query.where(_j.number < found.number if order == "desc" else _j.number > found.number)
            query = query.order_by(_j.number.desc() if order == "desc" else _j.number).limit(limit + 1)
            rows = connection.execute(query).all()
        return jobs_of(rows[:limit]), len(rows) > limit

    def queue(self, owner: str | None = None, limit: int = 1000) -> list[Job]:
        """Jobs that wait, in their order."""
        query = select(tables.jobs).where(_j.status == "queued", *_of(owner))
        with self._database.read() as connection:
            return jobs_of(connection.execute(query.order_by(*queue_order.ORDER).limit(limit)).all())

    def has_queued(self) -> bool:
        """Whether any job waits."""
        with self._database.read() as connection:
            return connection.execute(select(_j.id).where(_j.status == "queued").limit(1)).first() is not None

    def queue_positions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """How many come before jobs that wait, themselves included; without those that do not wait."""
        with self._database.read() as connection:
            return queue_order.places_of(connection, job_ids)

    def revision(self) -> int:
        """That of the last change."""
        with self._database.read() as connection:
            return connection.execute(_meta("revision")).scalar_one()

    def changed_since(self, revision: int, owner: str | None = None) -> list[Job]:
        """Jobs that are not what they were at a revision, the earliest change first."""
        query = select(tables.jobs).where(_j.revision > revision, *_of(owner)).order_by(_j.revision)
        with self._database.read() as connection:
            return jobs_of(connection.execute(query).all())

    def removed_since(self, revision: int, owner: str | None = None) -> list[str]:
        """Ids of jobs that were deleted since; of the last day."""
        removed = tables.removed.c
        query = select(removed.id).where(removed.revision > revision)
        if owner is not None:
            query = query.where(removed.owner == owner)
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(removed.revision)).scalars())

    def counts(self, owner: str | None = None) -> Counts:
        """How many there are of each status."""
        with self._database.read() as connection:
            rows = connection.execute(select(_j.status, func.count()).where(*_of(owner)).group_by(_j.status)).all()
            oldest = connection.execute(
                select(func.min(_j.created)).where(_j.status == "queued", *_of(owner))
            ).scalar_one_or_none()
            waited = 0.0 if oldest is None else max(0.0, self._database.now(connection) - oldest)
        numbers = dict.fromkeys(("queued", "in_progress", "completed", "failed"), 0)
        return Counts(numbers | {row[0]: row[1] for row in rows}, waited)

    # ------------------------------------------------------------------ wishes

    def insert(self, new: New, limits: Limits | None = None) -> Job:
        """Let a job wait for a worker.

        Returns:
            The job; of an idempotency key that its owner has used, the one that was made then.

        Raises:
            QueueFullError: too many wait.
            ConfigError: the key was used for another request.
        """
        limits = limits or Limits()
        with self._database.write() as (connection, revision):
            if new.idempotency_key is not None and (same := of_key(connection, new)) is not None:
                return same
            check_room(connection, new.owner, limits)
            values = {
                **values_of(new),
                "id": new_job_id(),
                "number": revision,
                "position": float(revision),
                "status": "queued",
                "created": self._database.now(connection),
                "revision": revision,
            }
            row = connection.execute(insert(tables.jobs).values(values).returning(*tables.jobs.c)).one()
            return job_of(row)

    def cancel(self, job_id: str, owner: str | None = None) -> Job | None:
        """Let a job end: at once where it waits, within a step where it is being made. None where there is none."""
        with self._database.write() as (connection, revision):
            job = _found(connection, job_id, owner)
            if job is None or job.is_over:
                return job
            if job.status == "queued":
                ended = {**FRESH, **CANCELLED, "finished": self._database.now(connection)}
                return _changed(connection, job_id, {**ended, "revision": revision})
            return _changed(connection, job_id, {"cancel_requested": True, "revision": revision})

    def retry(self, job_id: str, owner: str | None = None) -> Job | None:
        """Let a job that failed wait again, with all its attempts. None where there is none.

        Raises:
            ConfigError: it did not fail.
        """
        with self._database.write() as (connection, revision):
            job = _found(connection, job_id, owner)
            if job is None:
                return None
            if job.status != "failed":
                raise ConfigError(f"The video {job_id} is {job.status}; only one that failed can be tried again.")
            again: SettingsDict = {
                **FRESH,
                "status": "queued",
                "position": float(revision),
                "attempts": 0,
                "skips": 0,
                "skipped_at": None,
                "cancel_requested": False,
                "expires": None,
                **dict.fromkeys(("error_code", "error_message", "started", "finished")),
            }
            return _changed(connection, job_id, {**again, "revision": revision})

    def move(self, job_id: str, before: str | None, owner: str | None = None) -> Job | None:
        """Let a job that waits come before another one, or last of its owner's. None where there is none.

        An owner's jobs change places among themselves, so that nobody else's wait longer. Without an owner all do.

        Raises:
            ConfigError: one of them does not wait.
        """
        with self._database.write() as (connection, revision):
            if _found(connection, job_id, owner) is None:
                return None
            queue_order.move(connection, (job_id, before), _of(owner), revision)
            return _found(connection, job_id, owner)

    def prioritise(self, job_id: str, priority: int, owner: str | None = None) -> Job | None:
        """Give a job that waits another priority; those with a higher one come first. None where there is none.

        Raises:
            ConfigError: it does not wait.
        """
        with self._database.write() as (connection, revision):
            job = _found(connection, job_id, owner)
            if job is None:
                return None
            if job.status != "queued":
                raise ConfigError(f"The video {job_id} is {job.status}; only one that waits has a priority.")
            return _changed(connection, job_id, {"priority": priority, "revision": revision})

    def delete(self, job_id: str, owner: str | None = None) -> Job | None:
        """Forget a job; whoever makes it stops within a step. Its files are the caller's to remove.

        Returns:
            The job as it was; None where there is none.
        """
        with self._database.write() as (connection, revision):
            job = _found(connection, job_id, owner)
            if job is None:
                return None
            now = self._database.now(connection)
            connection.execute(delete(tables.removed).where(tables.removed.c.at < now - _FORGET_REMOVED_S))
            connection.execute(delete(tables.jobs).where(_j.id == job_id))
            connection.execute(insert(tables.removed).values(id=job_id, owner=job.owner, revision=revision, at=now))
            return job

    def uploads_in_use(self, uploads: Sequence[str]) -> set[str]:
        """Which of some uploads any job still names."""
        # Ids are unguessable, so their text in the column is they.
        text = func.cast(_j.uploads, tables.Text)
        named: set[str] = set()
        with self._database.read() as connection:
            for begin in range(0, len(uploads), _UPLOADS_AT_ONCE):
                some = uploads[begin : begin + _UPLOADS_AT_ONCE]
                query = select(_j.uploads).where(or_(*(text.contains(each) for each in some)))
                named |= {each for row in connection.execute(query).scalars() for each in row or ()}
        return named & set(uploads)

    # ------------------------------------------------------------------ workers

    def claim(self, worker: str, loaded: Sequence[str] = ()) -> Job | None:
        """Take the next job that waits; it is the worker's until its lease ends.

        Args:
            worker: its id.
            loaded: names of models that it has in memory; jobs of theirs go first, but not for long.
        """
        if not self.has_queued():  # so that workers without work write nothing
            return None
        with self._database.write() as (connection, revision):
            chosen = queue_order.choose(connection, loaded, self._database.now(connection), revision)
            if chosen is None:
                return None
            taken = {
                **FRESH,
                "status": "in_progress",
                "worker": worker,
                "attempts": _j.attempts + 1,
                "started": self._database.now(connection),
                "lease_until": self._database.lease_clock(connection) + self._lease,
                "revision": revision,
            }
            statement = update(tables.jobs).where(_j.id == chosen, _j.status == "queued").values(taken)
            row = connection.execute(statement.returning(*tables.jobs.c)).one_or_none()
            return None if row is None else job_of(row)

    def beat(self, job_id: str, worker: str, progress: Progress | None = None) -> Beat:
        """Renew the lease of a job, and say how far it is where that has changed."""
        if progress is None:
            with self._database.quiet_write() as connection:
                return self._beat(connection, (job_id, worker), {})
        values = {name: getattr(progress, name) for name in progress.__dataclass_fields__}
        with self._database.write() as (connection, revision):
            # Never back within an attempt: the share of a phase is an estimate.
            values["progress"] = _greater(_j.progress, min(progress.progress, 99))
            return self._beat(connection, (job_id, worker), {**values, "revision": revision})

    def note_cost(self, job_id: str, worker: str, cost: SettingsDict) -> None:
        """Say what a job takes that was taken in before anybody knew."""
        with self._database.write() as (connection, revision):
            values = {"cost": cost, "revision": revision}
            connection.execute(update(tables.jobs).where(*_held(job_id, worker)).values(values))

    def watch(self, job_id: str, worker: str) -> Beat:
        """As `beat`, without renewing the lease: it changes nothing, and costs little."""
        with self._database.read() as connection:
            row = connection.execute(select(_j.cancel_requested).where(*_held(job_id, worker))).one_or_none()
        return Beat(lost=True) if row is None else Beat(cancel=bool(row[0]))

    def abandon(self, worker: str, is_to_blame: bool = True) -> list[Job]:
        """Take back what a worker had, which is known to be dead; as `reap`.

        Args:
            worker: its id.
            is_to_blame: whether the job may have killed it; otherwise this was no attempt.
        """
        with self._database.write() as (connection, revision):
            connection.execute(delete(tables.workers).where(tables.workers.c.id == worker))
            mine = select(tables.jobs).where(_j.worker == worker, _j.status == "in_progress")
            found = jobs_of(connection.execute(mine).all())
            if not is_to_blame:
                found = [replace(job, attempts=job.attempts - 1) for job in found]
            return self._taken_back(connection, found, revision)

    def _beat(self, connection: Connection, whose: tuple[str, str], values: SettingsDict) -> Beat:
        until = self._database.lease_clock(connection) + self._lease
        statement = update(tables.jobs).where(*_held(*whose)).values(lease_until=until, **values)
        row = connection.execute(statement.returning(_j.cancel_requested)).one_or_none()
        return Beat(lost=True) if row is None else Beat(cancel=bool(row[0]))

    def finish(self, job_id: str, worker: str, outcome: Outcome, keep_seconds: float | None = None) -> bool:
        """The job is done and its files are in place. False where it was not the worker's any more.

        Args:
            job_id: of the job.
            worker: that made it.
            outcome: what came of it.
            keep_seconds: how long it is kept; None for ever.
        """
        values = {name: getattr(outcome, name) for name in outcome.__dataclass_fields__}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
        ended = {"status": "completed", "progress": 100, "eta_seconds": 0.0, "phase": None}
        return self._end(job_id, worker, {**plain, **ended, "step": _j.steps}, keep_seconds)

    def fail(self, job_id: str, worker: str, failure: Failure, keep_seconds: float | None = None) -> bool:
        """There will be no video. False where the job was not the worker's any more."""
        ended = {"status": "failed", "error_code": failure.code, "error_message": failure.message}
        return self._end(job_id, worker, {**ended, "eta_seconds": None, "phase": None}, keep_seconds)

    def _end(self, job_id: str, worker: str, values: SettingsDict, keep_seconds: float | None) -> bool:
        with self._database.write() as (connection, revision):
            now = self._database.now(connection)
            times = {
                "finished": now,
                "expires": None if keep_seconds is None else now + keep_seconds,
                "lease_until": None,
                "revision": revision,
            }
            return (
                connection.execute(
                    update(tables.jobs).where(*_held(job_id, worker)).values({**values, **times})
                ).rowcount
                == 1
            )

    def give_back(self, job_id: str, worker: str) -> bool:
        """Let a job wait again at its place, as if it had not been begun: its worker stops, through no fault of it."""
        with self._database.write() as (connection, revision):
            values = {**FRESH, "status": "queued", "attempts": _j.attempts - 1, "started": None, "revision": revision}
            statement = update(tables.jobs).where(*_held(job_id, worker)).values(values)
            return connection.execute(statement).rowcount == 1

    def reap(self) -> list[Job]:
        """Take jobs back whose worker is silent: they wait again, or fail after the last attempt.

        Returns:
            The jobs as they are now.
        """
        with self._database.read() as connection:
            if connection.execute(select(_j.id).where(self._is_silent(connection)).limit(1)).first() is None:
                return []
        with self._database.write() as (connection, revision):
            rows = connection.execute(select(tables.jobs).where(self._is_silent(connection))).all()
            return self._taken_back(connection, jobs_of(rows), revision)

    def _taken_back(self, connection: Connection, jobs: Sequence[Job], revision: int) -> list[Job]:
        now = self._database.now(connection)
        found = [_changed(connection, job.id, {**reaped(job, now), "revision": revision}) for job in jobs]
        return [job for job in found if job is not None]

    def _is_silent(self, connection: Connection) -> Any:
        now = self._database.lease_clock(connection)
        # A lease that ends later than any can was measured with the clock of an earlier start of the machine.
        outside = or_(_j.lease_until < now, _j.lease_until > now + 2 * self._lease, _j.lease_until.is_(None))
        return (_j.status == "in_progress") & outside

    def expired(self) -> list[Job]:
        """Jobs whose time is over."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            query = select(tables.jobs).where(_j.status.in_(_OVER), _j.expires < now)
            return jobs_of(connection.execute(query.order_by(_j.number)).all())

    def finished(self, limit: int) -> list[Job]:
        """Jobs that are over, those first that have been so for longest."""
        query = select(tables.jobs).where(_j.status.in_(_OVER))
        with self._database.read() as connection:
            return jobs_of(connection.execute(query.order_by(_j.finished, _j.number).limit(limit)).all())

    def finished_before(self, seconds_ago: float) -> list[Job]:
        """Jobs that have been over for so long."""
        with self._database.read() as connection:
            until = self._database.now(connection) - seconds_ago
            query = select(tables.jobs).where(_j.status.in_(_OVER), _j.finished <= until)
            return jobs_of(connection.execute(query.order_by(_j.number)).all())

    def redone(self) -> set[str]:
        """Ids of jobs whose segments one that waits or is being made takes over."""
        query = select(_j.redo).where(_j.status.in_(("queued", "in_progress")))
        with self._database.read() as connection:
            return {Redo.of(each).job for each in connection.execute(query).scalars() if each}

    def beginning_with(self, text: str) -> list[Job]:
        """Two jobs at most whose id begins so."""
        query = select(tables.jobs).where(_j.id.startswith(text, autoescape=True)).limit(2)
        with self._database.read() as connection:
            return jobs_of(connection.execute(query).all())


def _meta(name: str) -> Any:
    return select(tables.meta.c.value).where(tables.meta.c.name == name)


def _of(owner: str | None) -> list[Any]:
    return [] if owner is None else [_j.owner == owner]


def _wanted(search: Search) -> list[Any]:
    found = _of(search.owner)
    if search.status is not None:
        found.append(_j.status.in_(_OVER if search.status == "over" else (search.status,)))
    if search.model is not None:
        found.append(_j.model == search.model)
    if search.text:
        found.append(func.lower(_j.text).contains(search.text.lower(), autoescape=True))
    return found


def _held(job_id: str, worker: str) -> tuple[Any, ...]:
    """Whether a job is still the worker's: without this, one that was lost would be ended twice."""
    return (_j.id == job_id, _j.worker == worker, _j.status == "in_progress")


def _greater(column: Any, value: int) -> Any:
    from sqlalchemy import case

    return case((column > value, column), else_=value)


def _found(connection: Connection, job_id: str, owner: str | None) -> Job | None:
    row = connection.execute(select(tables.jobs).where(_j.id == job_id, *_of(owner))).one_or_none()
    return None if row is None else job_of(row)


def _changed(connection: Connection, job_id: str, values: SettingsView) -> Job | None:
    statement = update(tables.jobs).where(_j.id == job_id).values(dict(values)).returning(*tables.jobs.c)
    row = connection.execute(statement).one_or_none()
    return None if row is None else job_of(row)
