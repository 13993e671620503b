"""A job as a value: what was asked for, how far it is, and what came of it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from muybridge.types import SettingsDict, SettingsView

Status = Literal["queued", "in_progress", "completed", "failed"]
ErrorCode = Literal[
    "invalid_value",
    "not_found",
    "invalid_api_key",
    "too_large",
    "queue_full",
    "out_of_memory",
    "worker_lost",
    "input_unreadable",
    "non_finite",
    "cancelled",
    "internal",
]
MOST_ATTEMPTS = 3
"""How often a job is begun whose worker dies."""
_JOB_ID = re.compile(r"video_[0-9a-f]{32}")


def new_job_id() -> str:
    """One that cannot be guessed."""
    return f"video_{secrets.token_hex(16)}"


def is_job_id(text: str) -> bool:
    """Whether it has the form of one, so that it may stand in a path."""
    return _JOB_ID.fullmatch(text) is not None


@dataclass(frozen=True)
class Redo:
    """Segments of a finished long video that are made anew; the others are taken over.

    Attributes:
        job: whose segments they are.
        segments: numbers, from 0.
        following: whether those behind them are made anew too.
    """

    job: str
    segments: tuple[int, ...]
    following: bool = False

    def plain(self) -> SettingsDict:
        """As the store keeps it."""
        return {"job": self.job, "segments": list(self.segments), "following": self.following}

    @classmethod
    def of(cls, plain: SettingsView) -> Redo:
        """From what `plain` gave."""
        return cls(str(plain["job"]), tuple(plain["segments"]), bool(plain.get("following")))


@dataclass(frozen=True)
class New:
    """What a job is made from.

    Attributes:
        owner: whose it is; jobs are visible to their owner.
        request: a document of `GenerateRequest` with ids of uploads for files and names of the catalog for networks.
        model: name of its model.
        text: of the prompt, to be searched for.
        uploads: ids of the files that it needs.
        idempotency_key: a second one of the same owner gives the first job again.
    """

    owner: str
    request: SettingsDict
    model: str
    text: str = ""
    priority: int = 0
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    seed: int | None = None
    cost: SettingsDict | None = None
    idempotency_key: str | None = None
    remixed_from: str | None = None
    uploads: tuple[str, ...] = ()
    redo: Redo | None = None


@dataclass(frozen=True)
class Job:
    """One row of the store; times are seconds of the epoch.

    Attributes:
        owner: whose it is.
        number: rises from job to job; the order of the list.
        position: within a priority, the order of the queue.
        attempts: how often it was begun.
        lease_until: on the clock that leases are measured with, which need not be that of the day.
        progress: 0 to 100; 100 once the file is there.
        revision: that of the table when this row was last changed.
        results: keys of files by variant: video, thumbnail, spritesheet.
        stage_seconds: time by phase.
        skips: how often a job behind it was preferred because its model was loaded.
    """

    id: str
    owner: str
    status: Status
    request: SettingsDict
    model: str
    number: int
    created: float
    revision: int
    error_code: str | None = None
    error_message: str | None = None
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    priority: int = 0
    position: float = 0.0
    attempts: int = 0
    skips: int = 0
    worker: str | None = None
    lease_until: float | None = None
    cancel_requested: bool = False
    progress: int = 0
    step: int = 0
    steps: int = 0
    segment: int = 0
    segments: int = 1
    phase: str | None = None
    eta_seconds: float | None = None
    preview_step: int | None = None
    results: Mapping[str, str] = field(default_factory=dict)
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    seed: int | None = None
    inference_time_s: float | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    cost: SettingsDict | None = None
    idempotency_key: str | None = None
    remixed_from: str | None = None
    uploads: tuple[str, ...] = ()
    redo: Redo | None = None
    text: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to it any more by itself."""
        return self.status in ("completed", "failed")


@dataclass(frozen=True)
class Progress:
    """How far a job is; see `Job`."""

    phase: str
    step: int = 0
    steps: int = 0
    segment: int = 0
    segments: int = 1
    progress: int = 0
    eta_seconds: float | None = None
    preview_step: int | None = None


@dataclass(frozen=True)
class Beat:
    """What a worker is told when it says that it is alive.

    Attributes:
        cancel: the job is not wanted any more.
        lost: the job is not its any more; whatever it does must leave no trace.
    """

    cancel: bool = False
    lost: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a finished job leaves behind; see `Job`."""

    results: Mapping[str, str]
    width: int
    height: int
    num_frames: int
    fps: float
    seed: int | None
    inference_time_s: float
    stage_seconds: Mapping[str, float]
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no video: a code for programs, a sentence for people that names no place of the server."""

    code: str
    message: str


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait: all together, and of one owner."""

    queued: int = 10_000
    queued_of_owner: int = 1_000


@dataclass(frozen=True)
class WorkerState:
    """What a worker says of itself.

    Attributes:
        id: of its process; another one after every start.
        state: starting, idle, busy or stopping.
        loaded: names of models that it has in memory.
        seen: when it last said so; filled in by the store.
        is_alive: whether that is not long ago; likewise.
    """

    id: str
    device: str
    host: str
    pid: int
    state: str
    job: str | None = None
    loaded: tuple[str, ...] = ()
    started: float = 0.0
    seen: float = 0.0
    is_alive: bool = True
