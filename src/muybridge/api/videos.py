"""Videos: asking for them, looking at them, and having done with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from muybridge.api.bodies import Kept, fields_of, request_body
from muybridge.api.errors import ApiError, not_found
from muybridge.api.files import Variant, content_of
from muybridge.api.owned import Own
from muybridge.api.service import Owner, Shared
from muybridge.api.shown import FAILS, Deleted, VideoList, VideoObject, poll_after_ms, shown, shown_all
from muybridge.api.submitting import Origin, finished, repeated, submit, submit_call
from muybridge.jobs.cleaning import Cleaner
from muybridge.jobs.record import Job, Redo
from muybridge.jobs.store import Search
from muybridge.types import SettingsDict

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=FAILS)

_Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}, "image/webp": {}, "image/gif": {}, "image/jpeg": {}}, "description": "The file"},
    206: {"description": "A part of it"},
    304: {"description": "The caller has it already"},
    416: {"description": "It has no such part"},
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Change(_Body):
    """Another place in the queue."""

    before: str | None = Field(default=None, max_length=80, description="the video that is to come after; null is last")
    priority: int | None = Field(default=None, ge=-100, le=100)


class RedoBody(_Body):
    """Segments of a long video to make anew."""

    segments: list[Annotated[int, Field(ge=0, le=100_000)]] = Field(min_length=1, max_length=1000)
    following: bool = Field(default=False, description="also those behind them")


@router.post("", openapi_extra=request_body())
async def create(request: Request, response: Response, service: Shared, owner: Owner, key: _Key = None) -> VideoObject:
    """Ask for a video; it is made when its turn comes."""
    job = await submit_call(request, service, owner, key)
    response.headers["openai-poll-after-ms"] = poll_after_ms(job)
    return await run_in_threadpool(shown, job, service)


@router.post("/sync", openapi_extra=request_body(), response_class=Response, responses=_FILE)
async def create_and_wait(request: Request, service: Shared, owner: Owner, key: _Key = None) -> Response:
    """Ask for a video and wait for it; the answer is the file."""
    job = await submit_call(request, service, owner, key)
    over = None
    try:
        over = await finished(service, job, service.settings.sync_seconds)
    finally:
        if over is None and key is None:  # nobody will ask for it
            await run_in_threadpool(service.store.cancel, job.id, owner)
    if over is None:
        raise ApiError(
            504,
            f"The video was not made within {service.settings.sync_seconds:g} seconds. Ask for it with POST /v1/videos "
            "and look at it until it is there.",
            "timeout",
        )
    if over.status == "failed":
        status = 500 if over.error_code in ("internal", "worker_lost") else 400
        raise ApiError(status, over.error_message or "The video was not made.", over.error_code)
    answer = await content_of(request, service, over, "video")
    answer.headers["x-video-id"] = answer.headers["x-request-id"] = over.id
    answer.headers["x-model"] = over.model.encode("ascii", "replace").decode()
    answer.headers["x-inference-time-s"] = f"{over.inference_time_s or 0:.3f}"
    if over.peak_memory_mb is not None:
        answer.headers["x-peak-memory-mb"] = f"{over.peak_memory_mb:.1f}"
    return answer


@router.get("")
def listing(
    service: Shared,
    owner: Owner,
    after: Annotated[str | None, Query(max_length=80, description="the last video of the page before")] = None,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    status: Annotated[
        Literal["queued", "in_progress", "completed", "failed", "over"] | None,
        Query(description="over: completed or failed"),
    ] = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    q: Annotated[str | None, Query(max_length=200, description="words of the prompt")] = None,
) -> VideoList:
    """Your videos, the newest first."""
    jobs, has_more = service.store.page(Search(owner, status, model, q), after, limit, order)
    data = shown_all(jobs, service)
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return VideoList(data=data, first_id=first, last_id=last, has_more=has_more)


@router.get("/{video_id}")
def retrieve(job: Own, response: Response, service: Shared) -> VideoObject:
    """One video."""
    response.headers["openai-poll-after-ms"] = poll_after_ms(job)
    return shown(job, service)


@router.patch("/{video_id}")
def change(body: Change, job: Own, service: Shared, owner: Owner) -> VideoObject:
    """Move a video that waits to another place in the queue."""
    if not body.model_fields_set:
        raise ApiError(400, "Say before or priority.")
    moved: Job | None = job
    if body.priority is not None:
        moved = service.store.prioritise(job.id, service.access.allowed(body.priority), owner)
    if "before" in body.model_fields_set:
        moved = service.store.move(job.id, body.before, owner)
    return shown(_still_there(moved, job.id), service)


@router.delete("/{video_id}")
def delete(job: Own, service: Shared, owner: Owner) -> Deleted:
    """Remove a video and its files; one that is being made is given up."""
    del owner
    Cleaner(service.store, service.files).remove(job)
    return Deleted(id=job.id)


@router.post("/{video_id}/cancel")
def cancel(job: Own, service: Shared, owner: Owner) -> VideoObject:
    """Give a video up: it fails with the code `cancelled`, within a step where it is being made."""
    return shown(_still_there(service.store.cancel(job.id, owner), job.id), service)


def _still_there(job: Job | None, name: str) -> Job:
    if job is None:  # deleted by another call meanwhile
        raise not_found("video", name)
    return job


@router.post("/{video_id}/remix", openapi_extra=request_body())
async def remix(
    job: Own, request: Request, response: Response, service: Shared, owner: Owner, key: _Key = None
) -> VideoObject:
    """Ask for the same video with another prompt, or other settings."""

    async def fields(kept: Kept) -> SettingsDict:
        given = await fields_of(request, kept)
        if "prompt" not in given:
            raise ApiError(400, "prompt: is missing; say what is to be seen instead", param="prompt")
        return {"request": repeated(job), **given}

    new = await submit(service, owner, fields, key, Origin(remixed_from=job.id))
    response.headers["openai-poll-after-ms"] = poll_after_ms(new)
    return await run_in_threadpool(shown, new, service)


@router.post("/{video_id}/redo")
async def redo(
    body: RedoBody, job: Own, response: Response, service: Shared, owner: Owner, key: _Key = None
) -> VideoObject:
    """Make segments of a long video anew; the others are taken over."""
    if not await run_in_threadpool(service.files.has_segments, job.id):
        raise ApiError(
            400, "This video has no segments to make anew: only a finished long one has, while they are kept."
        )

    if (last := max(body.segments)) >= job.segments > 1:
        there = f"This video has the segments 0 to {job.segments - 1}"
        raise ApiError(400, f"segments: there is no segment {last}. {there}.", param="segments")

    async def fields(kept: Kept) -> SettingsDict:
        del kept
        return {"request": repeated(job)}

    wanted = Redo(job.id, tuple(sorted(set(body.segments))), body.following)
    new = await submit(service, owner, fields, key, Origin(redo=wanted))
    response.headers["openai-poll-after-ms"] = poll_after_ms(new)
    return await run_in_threadpool(shown, new, service)


@router.head("/{video_id}/content", include_in_schema=False)
@router.get("/{video_id}/content", response_class=Response, responses=_FILE)
async def content(job: Own, request: Request, service: Shared, variant: Variant = "video") -> Response:
    """The file of a video, a picture of it, or how far it is as a small animation."""
    return await content_of(request, service, job, variant)
