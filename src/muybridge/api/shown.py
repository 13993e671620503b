"""Jobs as the API shows them: OpenAI's fields, all always there, and more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from muybridge.api.content import makeable
from muybridge.api.documents import Usual
from muybridge.api.service import Service
from muybridge.jobs.record import Job
from muybridge.types import SettingsDict, SettingsView


class Problem(BaseModel):
    """Why a video was not made."""

    code: str
    message: str


class VideoObject(BaseModel):
    """A video that is asked for, being made, or made."""

    id: str
    object: Literal["video"] = "video"
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100)
    model: str
    prompt: str | None = None
    seconds: str
    size: str
    error: Problem | None = None
    remixed_from_video_id: str | None = None
    quality: str = "standard"
    started_at: float | None = None
    phase: str | None = None
    step: int = 0
    steps: int = 0
    segment: int = 0
    segments: int = 1
    eta_seconds: float | None = None
    queue_position: int | None = Field(default=None, description="1 is next")
    priority: int = 0
    attempts: int = 0
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    seed: int | None = None
    inference_time_s: float | None = None
    stage_durations: dict[str, float] = Field(default_factory=dict)
    peak_memory_mb: float | None = None
    cost: dict[str, Any] | None = None
    variants: list[str] = Field(default_factory=list, description="what `/content?variant=` gives")
    preview_step: int | None = Field(default=None, description="of the latest preview")
    revision: int = 0
    request: SettingsDict = Field(default_factory=dict, description="what was asked for, as `request` takes it again")


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = "list"
    data: list[VideoObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class Deleted(BaseModel):
    """A video that is no more."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class UploadObject(BaseModel):
    """A file that requests can name."""

    id: str
    object: Literal["upload"] = "upload"
    kind: Literal["picture", "video"]
    width: int
    height: int
    num_frames: int


class ErrorContent(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str


class ErrorBody(BaseModel):
    """The body of every answer that is none."""

    error: ErrorContent


FAILS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 413, 415, 421, 429, 500, 503)
}
"""Answers that every address may give, for its description."""
_POLL_MS = (250, 5000)


def shown(job: Job, service: Service) -> VideoObject:
    """A job as the API shows it."""
    return shown_all([job], service)[0]


def shown_all(jobs: Sequence[Job], service: Service) -> list[VideoObject]:
    """Jobs as the API shows them."""
    models = service.store.models() if jobs else {}
    waiting = [job.id for job in jobs if job.status == "queued"]
    places = service.store.queue_positions(waiting)
    return [_shown(job, Usual.of(models.get(job.model)), places.get(job.id)) for job in jobs]


def _shown(job: Job, usual: Usual, place: int | None) -> VideoObject:
    width, height = job.width or usual.width, job.height or usual.height
    num_frames, fps = job.num_frames or usual.num_frames, job.fps or usual.fps
    return VideoObject(
        id=job.id,
        created_at=int(job.created),
        completed_at=int(job.finished) if job.finished and job.status == "completed" else None,
        expires_at=None if job.expires is None else int(job.expires),
        status=job.status,
        progress=job.progress,
        model=job.model,
        prompt=_prompt(job.request),
        seconds=f"{num_frames / fps:.6g}" if num_frames and fps else "0",
        size=f"{width}x{height}" if width and height else "auto",
        error=None if job.error_code is None else Problem(code=job.error_code, message=job.error_message or ""),
        remixed_from_video_id=job.remixed_from,
        started_at=job.started,
        phase=job.phase,
        step=job.step,
        steps=job.steps,
        segment=job.segment,
        segments=job.segments,
        eta_seconds=job.eta_seconds,
        queue_position=place,
        priority=job.priority,
        attempts=job.attempts,
        width=width,
        height=height,
        num_frames=num_frames,
        fps=fps,
        seed=job.seed,
        inference_time_s=job.inference_time_s,
        stage_durations=dict(job.stage_seconds),
        peak_memory_mb=job.peak_memory_mb,
        cost=job.cost,
        variants=list(dict.fromkeys([*job.results, *makeable(job)])) if job.status == "completed" else [],
        preview_step=job.preview_step,
        revision=job.revision,
        request=dict(job.request),
    )


def _prompt(request: SettingsView) -> str | None:
    prompt = request.get("prompt")
    return " | ".join(map(str, prompt.values())) if isinstance(prompt, dict) else prompt


def poll_after_ms(job: Job) -> str:
    """When it makes sense to look at a job again: after a tenth of the time that is left."""
    least, most = _POLL_MS
    wanted = 1000.0 if job.eta_seconds is None else job.eta_seconds * 100
    return str(round(min(max(wanted, least), most)))
