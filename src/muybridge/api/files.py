"""From a job and the name of a variant to its file, which is made when it is first asked for."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path, PurePosixPath
from typing import Literal

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from muybridge.api.content import MADE, TYPES, makeable, ranged
from muybridge.api.errors import ApiError
from muybridge.api.service import Service
from muybridge.errors import NotFoundError
from muybridge.jobs.record import Job

Variant = Literal["video", "thumbnail", "spritesheet", "preview", "gif", "webp"]


async def content_of(request: Request, service: Service, job: Job, variant: Variant) -> Response:
    """The answer with a file of a job, or the part of it that is asked for.

    Raises:
        ApiError: it is not there yet, or not any more, or there will be none.
    """
    if variant == "preview":
        data = await run_in_threadpool(service.files.preview, job.id)
        if data is None:
            raise ApiError(404, f"There is no preview of {job.id}.")
        return ranged(request, lambda: io.BytesIO(data), len(data), variant, f"{job.id}-{job.preview_step}")
    if job.status == "failed":
        raise ApiError(404, f"There is no file: the video failed. {job.error_message or ''}".strip())
    if job.status != "completed":
        raise ApiError(404, f"There is no file yet: the video is {job.status} ({job.progress} %).", headers=_later(job))
    try:
        key = await _key_of(service, job, variant)
        size = await run_in_threadpool(service.files.size, key)
    except NotFoundError as error:
        raise ApiError(404, f"The file of {job.id} is not kept any more.") from error
    return ranged(request, lambda: service.files.open_result(key), size, variant, job.id)


def _later(job: Job) -> dict[str, str]:
    return {} if job.eta_seconds is None else {"Retry-After": str(max(1, round(job.eta_seconds)))}


async def _key_of(service: Service, job: Job, variant: str) -> str:
    """The key of a variant, which is made where it is not there yet.

    Raises:
        NotFoundError: the file that it would be made of is not there.
        ApiError: it would be too large.
    """
    if variant in job.results:
        return job.results[variant]
    video = job.results.get("video")
    if video is None or variant not in MADE:
        raise NotFoundError("There is no such file of the video.")
    if variant not in makeable(job):
        raise ApiError(
            400, f"The video is too large for a {variant} of it; download the video itself.", param="variant"
        )
    key = str(PurePosixPath(video).with_name(f"{variant}.{TYPES[variant][1]}"))
    if await run_in_threadpool(_is_there, service, key):
        return key
    async with service.making:
        if await run_in_threadpool(_is_there, service, key):  # another call has made it meanwhile
            return key
        return await run_in_threadpool(_made, service, job, variant)


def _is_there(service: Service, key: str) -> bool:
    try:
        service.files.size(key)
    except NotFoundError:
        return False
    return True


def _made(service: Service, job: Job, variant: str) -> str:
    source = service.files.local_result(job.results["video"])
    # Beside the results where they lie on this machine, so that moving it there is renaming it.
    above = source.parent if service.files.is_local else None
    with tempfile.TemporaryDirectory(prefix=".making-", dir=above) as folder:
        path = Path(folder, f"{variant}.{TYPES[variant][1]}")
        service.decoder.animate(source, path)
        return service.files.put_result(job, variant, path)
