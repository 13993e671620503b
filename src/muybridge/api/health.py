"""Whether the service lives, can work, and what it does."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from muybridge.api.errors import ApiError
from muybridge.api.metrics import metrics_text
from muybridge.api.service import Owner, Service, Shared
from muybridge.api.shown import FAILS, VideoObject, shown_all
from muybridge.jobs.record import WorkerState
from muybridge.version import __version__

router = APIRouter(tags=["health"], responses=FAILS)

_SHOWN = 100


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class WorkerObject(BaseModel):
    """A process that makes videos."""

    device: str
    state: str
    job: str | None = None
    loaded: list[str]


class Queue(BaseModel):
    """What there is to do, and who does it."""

    counts: dict[str, int]
    workers: list[WorkerObject]
    waiting: int = Field(description="how many of yours wait")
    videos: list[VideoObject] = Field(description="those of yours that are next, in their order")


@router.get("/health")
async def health() -> Health:
    """Whether the process answers."""
    return Health()


@router.get("/ready")
def ready(service: Shared) -> Health:
    """Whether jobs can be kept and somebody is there to carry them out."""
    service.store.check_writable()
    if not _alive(service):
        raise ApiError(503, "No worker is alive.", headers={"Retry-After": "5"})
    return Health()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, owner: Owner) -> Response:
    """Figures for Prometheus."""
    del owner
    text = await run_in_threadpool(metrics_text, request.app.state.collector)
    return Response(text, media_type="text/plain; version=1.0.0; charset=utf-8")


@router.get("/v1/queue")
def queue(service: Shared, owner: Owner) -> Queue:
    """What there is to do of everybody's, and who does it; jobs are named to their owner only."""
    return Queue(
        counts=dict(service.store.counts().by_status),
        workers=[_worker(each, service, owner) for each in _alive(service)],
        waiting=service.store.counts(owner).by_status["queued"],
        videos=shown_all(service.store.queue(owner, _SHOWN), service),
    )


def _alive(service: Service) -> list[WorkerState]:
    return [worker for worker in service.store.workers() if worker.is_alive]


def _worker(worker: WorkerState, service: Service, owner: str) -> WorkerObject:
    is_own = worker.job is not None and service.store.get(worker.job, owner) is not None
    return WorkerObject(
        device=worker.device,
        state=worker.state,
        job=worker.job if is_own else None,
        loaded=list(worker.loaded),
    )
