"""What a job's row says at a turn of its life: when it waits anew, when it is cancelled, when its worker was lost."""

from __future__ import annotations

from muybridge.jobs.record import MOST_ATTEMPTS, Job
from muybridge.types import SettingsDict

FRESH: SettingsDict = {
    "worker": None,
    "lease_until": None,
    "progress": 0,
    "step": 0,
    "steps": 0,
    "segment": 0,
    "segments": 1,
    "phase": None,
    "eta_seconds": None,
    "preview_step": None,
}
"""What says how far a job is, of one that waits."""
CANCELLED = {"status": "failed", "error_code": "cancelled", "error_message": "The job was cancelled."}
"""Of one that was cancelled."""


def reaped(job: Job, now: float) -> SettingsDict:
    """Of one whose worker is silent: it waits again, or fails after the last attempt."""
    if job.cancel_requested:
        return {**FRESH, **CANCELLED, "finished": now}
    if job.attempts < MOST_ATTEMPTS:
        return {**FRESH, "status": "queued", "started": None, "attempts": job.attempts}
    message = f"The process that made the video ended {job.attempts} times; it is not begun again."
    return {**FRESH, "status": "failed", "error_code": "worker_lost", "error_message": message, "finished": now}
