"""The job that a call is about."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path
from starlette.concurrency import run_in_threadpool

from muybridge.api.errors import not_found
from muybridge.api.service import Owner, Shared
from muybridge.jobs.record import Job


async def job_of(service: Shared, owner: Owner, video_id: Annotated[str, Path(max_length=80)]) -> Job:
    """The job that a call is about. Raises ApiError where there is none, or it is another's."""
    job = await run_in_threadpool(service.store.get, video_id, owner)
    if job is None:
        raise not_found("video", video_id)
    return job


Own = Annotated[Job, Depends(job_of)]
