"""The loop of a worker: take a job, carry it out, put its files in place, say so; one job at a time."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from muybridge.errors import Cancelled, MuybridgeError, NotFoundError, StoreError
from muybridge.jobs.attempt import Attempt
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.cleaning import tidy
from muybridge.jobs.failures import failure_of, spoils_the_process
from muybridge.jobs.files import FileStore
from muybridge.jobs.known_costs import KnownCosts, refusal_of
from muybridge.jobs.record import Failure, Job, Outcome, WorkerState
from muybridge.jobs.resolving import Resolved, resolved
from muybridge.jobs.stills import write_stills
from muybridge.jobs.store import JobStore
from muybridge.types import SettingsDict

_log = logging.getLogger(__name__)
_TICK_S = 0.5
_SIGN_OF_LIFE_S = 5.0
_IDLE_WAIT_S = 1.0
_PAUSE_AFTER_ERROR_S = 1.0
_TIDY_EVERY_S = 3600.0


class Made(Protocol):
    """What an engine says of a finished video; see `service.engine.GenerationResult`."""

    path: Path
    num_frames: int
    width: int
    height: int
    fps: float
    seed: int
    phase_seconds: dict[str, float]
    peak_memory_bytes: int


class VideoEngine(Protocol):
    """What a worker needs of `service.engine.Engine`."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """Models that are in memory."""
        ...

    run: Callable[..., Any]
    """As of `Engine`; gives a `Made`."""
    open: Callable[..., Any]
    """As of `Engine`; gives the files of a request."""
    cost: Callable[..., Any]
    """As of `Engine`; gives a `service.engine.Cost`."""


def new_worker_id(device: str) -> str:
    """Another one for each process."""
    return f"{socket.gethostname()}-{device.replace(':', '')}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker goes about it.

    Attributes:
        device: as the engine calls it.
        id: of its own process.
        keep_seconds: how long finished jobs are kept; None for ever.
        shows_previews: whether there are previews.
    """

    device: str = "cpu"
    id: str = field(default_factory=lambda: new_worker_id("cpu"))
    keep_seconds: float | None = None
    shows_previews: bool = True


class Worker:
    """Carries jobs out until it is told to stop."""

    def __init__(
        self, store: JobStore, files: FileStore, catalog: Catalog, engine: VideoEngine, settings: WorkerSettings
    ) -> None:
        """Of what it works with."""
        self._store = store
        self._files = files
        self._catalog = catalog
        self._engine = engine
        self._settings = settings
        self._attempt: Attempt | None = None
        self._stopping = threading.Event()
        self._names = {place: name for name, place in catalog.places.get("models", {}).items()}
        self._started = time.time()
        self._costs = KnownCosts()
        self._next_tidying = 0.0
        self.is_spoilt = False

    def stop(self) -> None:
        """End soon: a job in progress is given back after the step that it is in. May be called by a signal handler."""
        self._stopping.set()
        attempt = self._attempt
        if attempt is not None:
            attempt.is_stopping = True

    def run(self) -> None:
        """Work until `stop`, or until the process is no good any more (`is_spoilt`)."""
        pulse = threading.Thread(target=self._pulse, name="pulse", daemon=True)
        pulse.start()
        news = self._store.news()
        try:
            while not self._stopping.is_set() and not self.is_spoilt:
                if not self._guarded_run_one():
                    news.wait(_IDLE_WAIT_S)
        finally:
            self._stopping.set()
            news.close()
            pulse.join(timeout=2 * _TICK_S)
            self._leave()

    def _leave(self) -> None:
        try:
            self._store.remove_worker(self._settings.id)
        except StoreError as error:
            _log.warning("%s", error)

    def _guarded_run_one(self) -> bool:
        try:
            if time.monotonic() >= self._next_tidying:  # of this machine, where there may be no other housekeeping
                self._next_tidying = time.monotonic() + _TIDY_EVERY_S
                tidy(self._store, self._files)
            return self.run_one()
        except StoreError as error:  # away for a moment; what was begun is somebody's again when its lease ends
            _log.warning("%s", error)
            self._stopping.wait(_PAUSE_AFTER_ERROR_S)
            return False

    def run_one(self) -> bool:
        """Carry out the next job, if any waits."""
        loaded = [self._names.get(place, place) for place in self._engine.loaded]
        job = self._store.claim(self._settings.id, loaded)
        if job is None:
            return False
        attempt = Attempt(self._store, self._files, job, self._settings.id, self._settings.shows_previews)
        self._attempt = attempt
        attempt.is_stopping = self._stopping.is_set()
        try:
            self._carry_out(attempt)
        finally:
            self._attempt = None
        return True

    def _carry_out(self, attempt: Attempt) -> None:
        job = attempt.job
        names: Mapping[str, str] = {}
        started = time.perf_counter()
        try:
            found = resolved(job.request, self._catalog, self._files)
            names = {str(self._files.work_folder(job)): "the video", **found.names}
            self._check_there(found)
            inputs = None if job.cost is not None else self._engine.open(found.request)
            attempt.check()
            if (refusal := refusal_of(self._cost(job, found, inputs), "the device of this worker")) is not None:
                self._fail(attempt, Failure("out_of_memory", refusal))
                return
            made = self._make(attempt, found, inputs)
            outcome = self._put(attempt, made, time.perf_counter() - started)
        except Cancelled:
            self._end_early(attempt)
        except Exception as error:  # whatever it is, the next job is another one
            self.is_spoilt = spoils_the_process(error)
            if not isinstance(error, MuybridgeError):
                _log.exception("The job %s failed", job.id)
            self._fail(attempt, failure_of(error, names))
        else:
            self._finish(attempt, outcome)

    def _make(self, attempt: Attempt, found: Resolved, inputs: object) -> Made:
        job = attempt.job
        output = self._files.work_folder(job) / "video.mp4"
        if job.redo is not None and not _segments(output).exists():
            self._files.take_segments(job.redo.job, _segments(output))
        return self._engine.run(
            found.request,
            output,
            inputs=inputs,
            public=found.public.plain(),
            report=attempt.report,
            redo=() if job.redo is None else job.redo.segments,
            redo_following=job.redo is not None and job.redo.following,
        )

    def _check_there(self, found: Resolved) -> None:
        """A model that was there when names were read may be gone."""
        place = found.request.model.model
        if Path(place).is_absolute() and not Path(place).exists():
            raise NotFoundError(f"The model {found.public.model.model!r} is not there any more. Choose another.")

    def _cost(self, job: Job, found: Resolved, inputs: object) -> SettingsDict:
        """What it takes here, where that was not known when it was taken in, as by a server without workers."""
        if job.cost is not None:
            return job.cost
        cost = self._costs.of(job.request)
        if cost is None:
            cost = asdict(self._engine.cost(found.request, inputs))
            self._costs.keep(job.request, cost)
        try:
            self._store.note_cost(job.id, self._settings.id, cost)
        except StoreError as error:  # it is only shown
            _log.warning("%s", error)
        return cost

    def _put(self, attempt: Attempt, made: Made, seconds: float) -> Outcome:
        attempt.check()
        attempt.show()
        stills = write_stills(made.path, made.num_frames, made.path.parent)
        # The video last: where it is, all is.
        results = {variant: self._files.put_result(attempt.job, variant, path) for variant, path in stills.items()}
        segments = _segments(made.path)
        results["video"] = self._files.put_result(attempt.job, "video", made.path)
        self._files.keep_segments(attempt.job.id, segments)
        return Outcome(
            results=results,
            width=made.width,
            height=made.height,
            num_frames=made.num_frames,
            fps=made.fps,
            seed=made.seed,
            inference_time_s=round(seconds, 4),
            stage_seconds={name: round(value, 4) for name, value in made.phase_seconds.items()},
            peak_memory_mb=round(made.peak_memory_bytes / 2**20, 1),
        )

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        job = attempt.job
        if self._store.finish(job.id, self._settings.id, outcome, self._settings.keep_seconds):
            self._files.keep_only(job)
            self._files.remove_work(job.id)
        else:
            self._files.remove_attempt(job)

    def _end_early(self, attempt: Attempt) -> None:
        job = attempt.job
        if attempt.is_cancelled:
            self._fail(attempt, Failure("cancelled", "The job was cancelled."))
        elif attempt.is_lost:
            self._files.remove_attempt(job)
        else:
            self._store.give_back(job.id, self._settings.id)

    def _fail(self, attempt: Attempt, failure: Failure) -> None:
        job = attempt.job
        if self._store.fail(job.id, self._settings.id, failure, self._settings.keep_seconds):
            self._files.remove(job.id)
        else:
            self._files.remove_attempt(job)

    def _pulse(self) -> None:
        """Signs of life, of the worker and of its job."""
        last, said = 0.0, ""
        while not self._stopping.is_set() or self._attempt is not None:
            time.sleep(_TICK_S)
            attempt = self._attempt
            if attempt is not None:
                attempt.tick()
            state = self._state(attempt)
            if time.monotonic() - last < _SIGN_OF_LIFE_S and state.state == said:
                continue
            try:
                self._store.beat_worker(state)
                last, said = time.monotonic(), state.state
            except StoreError as error:
                _log.warning("%s", error)

    def _state(self, attempt: Attempt | None) -> WorkerState:
        doing = "stopping" if self._stopping.is_set() else "busy" if attempt is not None else "idle"
        return WorkerState(
            id=self._settings.id,
            device=self._settings.device,
            host=socket.gethostname(),
            pid=os.getpid(),
            state=doing,
            job=None if attempt is None else attempt.job.id,
            loaded=tuple(self._names.get(place, place) for place in self._engine.loaded),
        )


def _segments(output: Path) -> Path:
    """Where the engine keeps finished segments of a long video."""
    return output.with_name(output.name + ".segments")
