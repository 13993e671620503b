"""One attempt at a job: how far it is, whether it is still wanted, and whose it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from muybridge.errors import Cancelled, MuybridgeError, StoreError
from muybridge.jobs.files import FileStore
from muybridge.jobs.record import Beat, Job, Progress
from muybridge.jobs.store import JobStore

_log = logging.getLogger(__name__)
_SHARES = {"load": (1, 3), "encode": (3, 5), "denoise": (5, 90), "decode": (90, 96), "write": (96, 99)}
"""Of a hundred, from where to where each phase goes; a guess, as decoding alone takes no steps."""

_STEPS_OF_SEGMENTS = (5, 99)


class Picture(Protocol):
    """Small frames of what a video is going to be."""

    def webp(self) -> bytes:
        """As an animation."""
        ...


class Report(Protocol):
    """What an engine tells while it works; see `service.reporting.Report`."""

    @property
    def phase(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def segment(self) -> int: ...  # noqa: D102
    @property
    def segments(self) -> int: ...  # noqa: D102
    @property
    def preview(self) -> Callable[[], Picture | None] | None: ...  # noqa: D102


class Attempt:
    """Told by the engine how far it is, and by the store whether to go on.

    The engine only leaves a note here, which costs nothing; a thread carries it to the store. So a slow store holds no
    step up, and a step of minutes does not end the lease.
    """

    def __init__(self, store: JobStore, files: FileStore, job: Job, worker: str, shows_previews: bool = True) -> None:
        """Of a job that the worker has claimed."""
        self.job = job
        self._store = store
        self._files = files
        self._worker = worker
        self._shows_previews = shows_previews
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._told: Progress | None = None
        self._first_step: tuple[float, int] | None = None
        self._picture: tuple[Picture, int] | None = None
        self._preview_step: int | None = None
        self._renewed = time.monotonic()
        self.is_cancelled = False
        self.is_lost = False
        self.is_stopping = False

    def report(self, report: Report) -> None:
        """Take a report of the engine.

        Raises:
            Cancelled: the job is not to go on, for whatever reason.
        """
        self.check()
        picture = self._picture_of(report)
        with self._lock:
            self._progress = self._progress_of(report)
            if picture is not None:
                self._picture = (picture, report.step)

    def _picture_of(self, report: Report) -> Picture | None:
        if not self._shows_previews or report.preview is None:
            return None
        try:
            return report.preview()
        except Exception:  # no reason to make no video
            _log.exception("There is no preview of %s", self.job.id)
            return None

    def show(self) -> None:
        """Encode and keep the latest picture, if it is a new one."""
        with self._lock:
            shown, self._picture = self._picture, None
        if shown is None or self.is_lost or self.is_cancelled:
            return
        picture, step = shown
        try:
            self._files.put_preview(self.job, picture.webp())
        except MuybridgeError as error:  # no reason to make no video
            _log.warning("There is no preview of %s: %s", self.job.id, error)
        except Exception:
            _log.exception("There is no preview of %s", self.job.id)
        else:
            self._preview_step = step

    def check(self) -> None:
        """Whether to go on.

        Raises:
            Cancelled: it is cancelled, lost, or the worker stops.
        """
        if self.is_cancelled or self.is_lost or self.is_stopping:
            raise Cancelled("The job was cancelled.")

    def tick(self) -> None:
        """Say how far the job is, renew the lease, and hear whether to go on; a store that is away is waited for."""
        self.show()
        with self._lock:
            progress = self._progress
        if progress is not None:
            progress = replace(progress, preview_step=self._preview_step)
        now = time.monotonic()
        try:
            beat = self._beat(progress, now)
        except StoreError as error:
            _log.warning("%s", error)
            # Somebody else has it by then, or will have.
            beat = Beat(lost=now - self._renewed > self._store.lease_seconds)
        self.is_cancelled |= beat.cancel
        self.is_lost |= beat.lost

    def _beat(self, progress: Progress | None, now: float) -> Beat:
        if progress is not None and progress != self._told:
            beat = self._store.beat(self.job.id, self._worker, progress)
            self._told, self._renewed = progress, now
            return beat
        if now - self._renewed < self._store.lease_seconds / 6:
            return self._store.watch(self.job.id, self._worker)
        beat = self._store.beat(self.job.id, self._worker)
        self._renewed = now
        return beat

    def _progress_of(self, report: Report) -> Progress:
        low, high = _SHARES.get(report.phase, (0, 99))
        share = report.step / report.steps if report.phase == "denoise" and report.steps else 0.0
        if report.segments > 1 and report.steps:  # phases come again with every segment; steps are those of all
            (low, high), share = _STEPS_OF_SEGMENTS, report.step / report.steps
        return Progress(
            phase=report.phase,
            step=report.step,
            steps=report.steps,
            segment=report.segment,
            segments=report.segments,
            progress=round(low + share * (high - low)),
            eta_seconds=self._left(report),
        )

    def _left(self, report: Report) -> float | None:
        """Seconds for the steps that are missing, as long each as those before."""
        now = time.monotonic()
        if report.phase != "denoise" or not report.steps:
            return None
        if self._first_step is None:
            self._first_step = (now, report.step)
        since, first = self._first_step
        if report.step <= first:
            return None
        return round((now - since) / (report.step - first) * (report.steps - report.step), 1)
