"""What is removed: jobs whose time is over, the oldest where files take too much, and what nobody knows any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from muybridge.jobs.files import FileStore
from muybridge.jobs.record import Job
from muybridge.jobs.store import JobStore

_log = logging.getLogger(__name__)
_UPLOADS_KEPT_S = 86_400.0
"""How long an upload waits for a job that names it."""
_JUMP_S = 300.0
_HOLD_S = 3_600.0
_PAGE = 20


def tidy(store: JobStore, files: FileStore) -> None:
    """Remove what is of no use on this machine: unused copies, and what a worker left that was killed at the very end.

    Raises:
        StoreError: the store cannot be asked.
    """
    files.remove_copies()
    for job_id in files.jobs_with_work():
        job = store.get(job_id)
        try:
            if job is not None and job.status == "completed":
                files.keep_only(job)
            if job is None or job.status == "completed":
                files.remove_work(job_id)
        except OSError as error:  # of files that lie elsewhere; there is another time
            _log.warning("What was left of %s could not be removed: %s", job_id, error)


@dataclass(frozen=True)
class Cleaned:
    """What was removed: ids of jobs and of uploads, and ids of jobs long gone that had left files."""

    jobs: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()
    remains: tuple[str, ...] = ()


class Cleaner:
    """Removes what is not to be kept; never a job that waits or is being made, nor what it needs."""

    def __init__(
        self,
        store: JobStore,
        files: FileStore,
        most_bytes: int | None = None,
        clocks: tuple[Callable[[], float], Callable[[], float]] = (time.time, time.monotonic),
        keep_seconds: float | None = None,
    ) -> None:
        """Of a store and its files.

        Args:
            store: of jobs.
            files: of theirs.
            most_bytes: that files may take together.
            clocks: that of the day, and one that nobody sets.
            keep_seconds: after which any job that is over goes, also one that has no time of its own; None for never.
        """
        self._store = store
        self._files = files
        self._most_bytes = most_bytes
        self._keep_seconds = keep_seconds
        self._day, self._steady = clocks
        self._offset = self._day() - self._steady()
        self._held_until = 0.0

    def clean(self) -> Cleaned:
        """Remove what is to be removed now; nothing while the clock has just jumped, as ages are wrong then."""
        if self._is_clock_doubtful():
            return Cleaned()
        self._files.remove_unfinished()
        tidy(self._store, self._files)
        needed = self._store.redone()
        jobs = [self.remove(job) for job in self._old() if job.id not in needed]
        jobs += self._over_quota(needed)
        return Cleaned(tuple(jobs), tuple(self._idle_uploads()), tuple(self._remains()))

    def remove(self, job: Job) -> str:
        """Remove a job, its files, and its uploads where no other job names them; gives its id."""
        # First the row: files without a row are found again, a row without files would be a lie.
        self._store.delete(job.id)
        self._files.remove(job.id)
        kept = self._store.uploads_in_use(job.uploads)
        for each in job.uploads:
            if each not in kept:
                self._files.remove_upload(each)
        return job.id

    def _is_clock_doubtful(self) -> bool:
        offset = self._day() - self._steady()
        if abs(offset - self._offset) > _JUMP_S:
            _log.warning("The clock was set by %.0f s; nothing is removed for an hour.", offset - self._offset)
            self._offset, self._held_until = offset, self._steady() + _HOLD_S
        return self._steady() < self._held_until

    def _old(self) -> list[Job]:
        found = self._store.expired()
        if self._keep_seconds is not None:
            found += self._store.finished_before(self._keep_seconds)
        return list({job.id: job for job in found}.values())

    def _over_quota(self, needed: Set[str]) -> list[str]:
        removed: list[str] = []
        if self._most_bytes is None:
            return removed
        # What a job frees is only known afterwards: uploads stay where others name them.
        while (over := self._files.usage() - self._most_bytes) > 0:
            oldest = [job for job in self._store.finished(_PAGE + len(needed)) if job.id not in needed]
            if not oldest:
                break
            for job in oldest:
                over -= self._most_freed(job)
                removed.append(self.remove(job))
                if over <= 0:
                    break
        return removed

    def _most_freed(self, job: Job) -> int:
        uploads = [self._files.upload(each) for each in job.uploads]
        return self._files.size_of(job.id) + sum(each.size for each in uploads if each is not None)

    def _idle_uploads(self) -> Iterable[str]:
        now = self._day()
        old = [each.id for each in self._files.uploads() if now - each.created > _UPLOADS_KEPT_S]
        kept = self._store.uploads_in_use(old)
        for each in old:
            if each not in kept:
                self._files.remove_upload(each)
                yield each

    def _remains(self) -> Iterable[str]:
        for job_id in self._files.jobs_with_files():
            if self._store.get(job_id) is None:
                self._files.remove(job_id)
                yield job_id
