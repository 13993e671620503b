"""From a call to a queued job: checked, costed and inserted, or refused with nothing left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from muybridge.api.bodies import Kept, brings_files, fields_of, usual_of
from muybridge.api.documents import asked
from muybridge.api.errors import ApiError, not_found
from muybridge.api.service import Service
from muybridge.api.settings import Limits
from muybridge.jobs.known_costs import refusal_of
from muybridge.jobs.record import Job, New, Redo
from muybridge.jobs.resolving import check
from muybridge.request import GenerateRequest
from muybridge.types import SettingsDict, SettingsView


@dataclass(frozen=True)
class Origin:
    """Of a job that is made from another.

    Attributes:
        remixed_from: the other one, which a new prompt was given.
        redo: segments of it that are made anew.
    """

    remixed_from: str | None = None
    redo: Redo | None = None


async def submit(
    service: Service,
    owner: str,
    fields: Callable[[Kept], Awaitable[SettingsView]],
    key: str | None = None,
    origin: Origin = Origin(),
) -> Job:
    """Queue what a call asks for; files that it brought are thrown away where it comes to nothing.

    Args:
        service: that is asked.
        owner: who asks.
        fields: gives the fields of the call, and keeps its files.
        key: the same of the same owner is the same job.
        origin: where the job comes from.

    Raises:
        MuybridgeError: something is wrong with it, or the queue is full.
    """
    kept = Kept(service, owner)
    used: tuple[str, ...] = ()
    try:
        found = await fields(kept)
        carry_out = service.decode if brings_files(found) else run_in_threadpool
        job = await carry_out(_queued, service, found, kept, key, origin)
        used = job.uploads
    finally:
        await run_in_threadpool(kept.drop, used)
    return job


async def submit_call(request: Request, service: Service, owner: str, key: str | None) -> Job:
    """Queue what the body of a call asks for. Raises as `submit`."""
    return await submit(service, owner, lambda kept: fields_of(request, kept), key)


def _queued(service: Service, fields: SettingsView, kept: Kept, key: str | None, origin: Origin) -> Job:
    wanted = asked(fields, kept.reference, lambda model: usual_of(service, model))
    checked = check(wanted.document, service.catalog, service.files, kept.owner)
    request = checked.public
    _check_extent(request, service.settings.limits)
    document = _as_kept(request)
    new = New(
        kept.owner,
        document,
        request.model.model,
        _text(request),
        service.access.allowed(wanted.priority),
        request.shape.width,
        request.shape.height,
        request.shape.num_frames,
        request.shape.fps,
        request.sampling.seed,
        _cost(service, document),
        key,
        origin.remixed_from,
        checked.uploads,
        origin.redo,
    )
    return service.store.insert(new, service.settings.queue)


def _check_extent(request: GenerateRequest, limits: Limits) -> None:
    """Whether what is asked for is within reason.

    Raises:
        ApiError: it is not; names the field.
    """
    shape = request.shape
    for name, value, most in (
        ("shape.num_frames", shape.num_frames, limits.frames),
        ("shape.width", shape.width, limits.side),
        ("shape.height", shape.height, limits.side),
        ("shape.fit", shape.fit, limits.side),
        ("sampling.num_inference_steps", request.sampling.num_inference_steps, limits.steps),
    ):
        if value is not None and value > most:
            shown = value if value < 10**9 else "more than a milliard"
            raise ApiError(400, f"{name}: must be at most {most} (given {shown})", param=name)
    pixels = (shape.width or 1) * (shape.height or 1) * (shape.num_frames or 1)
    if pixels > (most := limits.asked_pixels):
        raise ApiError(400, f"shape: {pixels} pixels in all frames are too many; at most {most}", param="shape")


def _as_kept(request: GenerateRequest) -> SettingsDict:
    """The document as the store gives it back.

    Raises:
        ApiError: a number in it is none.
    """
    try:
        return json.loads(json.dumps(request.plain(), allow_nan=False))
    except ValueError as error:
        raise ApiError(400, "All numbers must be finite.") from error


def _text(request: GenerateRequest) -> str:
    prompt = request.prompt
    return " ".join(prompt.values()) if isinstance(prompt, dict) else prompt or ""


def _cost(service: Service, document: SettingsDict) -> SettingsDict | None:
    """What it takes, where that is known.

    Raises:
        ApiError: more than there is; says the least that would do.
    """
    cost = service.costs.of(document)
    if (refusal := refusal_of(cost)) is not None:
        raise ApiError(400, refusal, "out_of_memory")
    return cost


def repeated(job: Job) -> SettingsDict:
    """The request of a job as it was carried out: with the seed that was drawn where none was given."""
    request = dict(job.request)
    if job.seed is not None:
        request["sampling"] = {**request.get("sampling", {}), "seed": job.seed}
    return request


async def finished(service: Service, job: Job, seconds: float) -> Job | None:
    """The job once it is over; None where that takes longer.

    Raises:
        ApiError: it was deleted meanwhile.
    """
    async with service.feed.listening(job.owner) as listener:
        current = await run_in_threadpool(service.store.get, job.id, job.owner)
        until = time.monotonic() + seconds
        while current is not None and not current.is_over:
            left = until - time.monotonic()
            if left <= 0 or listener.is_over:
                return None
            changed, removed = await listener.changes(min(left, 1.0))
            current = None if job.id in removed else next((each for each in changed if each.id == job.id), current)
    if current is None:
        raise not_found("video", job.id)
    return current
