"""Whether a job may join the queue."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from muybridge.errors import ConfigError, QueueFullError
from muybridge.jobs import tables
from muybridge.jobs.record import Job, Limits, New
from muybridge.jobs.rows import job_of, without_uploads

_j = tables.jobs.c


def of_key(connection: Connection, new: New) -> Job | None:
    """The job that was asked for with the same key before.

    Raises:
        ConfigError: it was for another request.
    """
    query = select(tables.jobs).where(_j.owner == new.owner, _j.idempotency_key == new.idempotency_key)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    job = job_of(row)
    if without_uploads(job.request) != without_uploads(new.request):
        raise ConfigError("This Idempotency-Key was used for another request. Give each request a key of its own.")
    return job


def check_room(connection: Connection, owner: str, limits: Limits) -> None:
    """Raises QueueFullError where too many jobs wait."""
    waiting = select(func.count()).select_from(tables.jobs).where(_j.status == "queued")
    if connection.execute(waiting.where(_j.owner == owner)).scalar_one() >= limits.queued_of_owner:
        raise QueueFullError(f"{limits.queued_of_owner} of your videos wait already. Ask again when some are done.")
    if connection.execute(waiting).scalar_one() >= limits.queued:
        raise QueueFullError(f"The queue is full: {limits.queued} videos wait. Ask again later.")
