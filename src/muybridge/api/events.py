"""Changes of videos as server-sent events: first how everything is, then what happens."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from muybridge.api.owned import Own
from muybridge.api.service import Owner, Service, Shared
from muybridge.api.shown import FAILS, shown, shown_all
from muybridge.jobs.record import Job
from muybridge.jobs.store import Search

router = APIRouter(prefix="/v1", tags=["events"], responses=FAILS)

_RETRY_MS = 1000
_SNAPSHOT = 100
_SHOWN = ("id", "status", "progress", "step", "steps", "segment", "segments", "phase", "eta_seconds", "revision")


class _Teller:
    """Makes events of changes, knowing what was told before."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._told: dict[str, tuple[str, int | None]] = {}

    def snapshot(self, jobs: list[Job]) -> ServerSentEvent:
        for job in jobs:
            self._told[job.id] = (job.status, job.preview_step)
        videos = [video.model_dump() for video in shown_all(jobs, self._service)]
        revision = max((job.revision for job in jobs), default=0)
        return _event("snapshot", {"videos": videos}, revision)

    def changes(self, jobs: list[Job]) -> list[ServerSentEvent]:
        return [event for job in jobs for event in self._of(job)]

    def _of(self, job: Job) -> list[ServerSentEvent]:
        status, preview = self._told.get(job.id, (None, None))
        self._told[job.id] = (job.status, job.preview_step)
        found = []
        if job.preview_step is not None and job.preview_step != preview and not job.is_over:
            url = f"/v1/videos/{job.id}/content?variant=preview&step={job.preview_step}"
            found.append(_event("preview", {"id": job.id, "step": job.preview_step, "url": url}, job.revision))
        if job.is_over:
            kind, data = "done", shown(job, self._service).model_dump()
            self._told.pop(job.id)
        elif job.status != status or job.status == "queued":
            kind, data = "job", shown(job, self._service).model_dump()
        else:
            kind, data = "progress", {name: getattr(job, name) for name in _SHOWN}
        return [*found, _event(kind, data, job.revision)]


def _event(kind: str, data: dict[str, Any], revision: int) -> ServerSentEvent:
    return ServerSentEvent(event=kind, data=data, id=str(revision), retry=_RETRY_MS)


_Revision = Annotated[str | None, Query(max_length=18, description="the id of the last event that you were told")]


@router.get("/events", response_class=EventSourceResponse)
async def all_events(
    service: Shared,
    owner: Owner,
    last_event_id: Annotated[str | None, Header(max_length=18)] = None,
    after: _Revision = None,
) -> AsyncIterable[ServerSentEvent]:
    """All your videos: `snapshot` of the newest, then `job`, `progress`, `preview`, `done` and `removed`.

    Who was told of them before, and says up to where, is told first what was removed since.
    """
    teller = _Teller(service)
    async with service.feed.listening(owner) as listener:
        jobs = await run_in_threadpool(_current, service, owner)
        known = last_event_id or after
        if known is not None and known.isdecimal():
            for each in await run_in_threadpool(service.store.removed_since, int(known), owner):
                yield _event("removed", {"id": each}, int(known))
        yield await run_in_threadpool(teller.snapshot, jobs)
        while not listener.is_over:
            changed, removed = await listener.changes()
            for event in await run_in_threadpool(teller.changes, changed):
                yield event
            for each in removed:
                yield _event("removed", {"id": each}, listener.revision)


def _current(service: Service, owner: str) -> list[Job]:
    """Those in the making, those that are next, and the newest, oldest first."""
    found = {job.id: job for job in service.store.queue(owner, _SNAPSHOT)}
    for status in ("in_progress", None):
        jobs, _ = service.store.page(Search(owner, status), limit=_SNAPSHOT)
        found |= {job.id: job for job in jobs}
    return sorted(found.values(), key=lambda job: job.number)


@router.get("/videos/{video_id}/events", response_class=EventSourceResponse)
async def events(job: Own, service: Shared, owner: Owner) -> AsyncIterable[ServerSentEvent]:
    """One video, until it is finished or has failed."""
    teller = _Teller(service)
    async with service.feed.listening(owner) as listener:
        current = await run_in_threadpool(service.store.get, job.id, owner) or job
        yield await run_in_threadpool(teller.snapshot, [current])
        if current.is_over:
            data = await run_in_threadpool(shown, current, service)
            yield _event("done", data.model_dump(), current.revision)
            return
        while not listener.is_over:
            changed, removed = await listener.changes()
            own = [each for each in changed if each.id == job.id]
            for event in await run_in_threadpool(teller.changes, own):
                yield event
            if job.id in removed:
                yield _event("removed", {"id": job.id}, listener.revision)
                return
            if any(each.is_over for each in own):
                return
