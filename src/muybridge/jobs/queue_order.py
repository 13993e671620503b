"""In which order jobs that wait are taken: by priority and place, with models that are loaded first for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from muybridge.errors import ConfigError
from muybridge.jobs import tables

_j = tables.jobs.c
ORDER = (_j.priority.desc(), _j.position, _j.number)
MOST_SKIPS = 4
"""How many jobs behind the first one may go before it because their model is loaded."""
MOST_WAIT_S = 120.0
"""Likewise, for how long after the first of them."""


def choose(connection: Connection, loaded: Sequence[str], now: float, revision: int) -> str | None:
    """The id of the job to begin now; None where none waits.

    The first of the queue, or one of its priority whose model is loaded, unless the first has been passed over too
    often or for too long.
    """
    waiting = select(_j.id, _j.model, _j.priority, _j.skips, _j.skipped_at).where(_j.status == "queued")
    first = connection.execute(waiting.order_by(*ORDER).limit(1)).first()
    if first is None:
        return None
    since = now if first.skipped_at is None else first.skipped_at
    may_wait = first.skips < MOST_SKIPS and now - since <= MOST_WAIT_S
    if not loaded or first.model in loaded or not may_wait:
        return first.id
    alike = waiting.where(_j.priority == first.priority, _j.model.in_(list(loaded)))
    preferred = connection.execute(alike.order_by(*ORDER).limit(1)).first()
    if preferred is None:
        return first.id
    skipped = {"skips": _j.skips + 1, "skipped_at": since, "revision": revision}
    connection.execute(update(tables.jobs).where(_j.id == first.id).values(skipped))
    return preferred.id


def places_of(connection: Connection, job_ids: Sequence[str]) -> dict[str, int]:
    """The places of jobs that wait, from 1."""
    if not job_ids:
        return {}
    place = func.row_number().over(order_by=ORDER)
    queue = select(_j.id, place.label("place")).where(_j.status == "queued").subquery()
    wanted = select(queue.c.id, queue.c.place).where(queue.c.id.in_(list(job_ids)))
    return {row.id: row.place for row in connection.execute(wanted)}


def move(connection: Connection, moved: tuple[str, str | None], whose: Sequence[Any], revision: int) -> None:
    """Let one job come before another, or last where that is None; the places stay, and who has them changes.

    Raises:
        ConfigError: one of them does not wait.
    """
    job_id, before = moved
    query = select(_j.id, _j.priority, _j.position).where(_j.status == "queued", *whose).order_by(*ORDER)
    places = connection.execute(query).all()
    names = [row.id for row in places]
    for each in (job_id, before):
        if each is not None and each not in names:
            raise ConfigError(f"The video {each} does not wait, so it has no place among those that do.")
    if job_id == before:
        return
    order = [each for each in names if each != job_id]
    order.insert(len(order) if before is None else order.index(before), job_id)
    changes = [
        {"job": new, "at_priority": place.priority, "at_position": place.position, "at_revision": revision}
        for place, new in zip(places, order, strict=True)
        if place.id != new
    ]
    if changes:
        statement = update(tables.jobs).where(_j.id == bindparam("job"))
        columns = ("priority", "position", "revision")
        connection.execute(statement.values({name: bindparam(f"at_{name}") for name in columns}), changes)
