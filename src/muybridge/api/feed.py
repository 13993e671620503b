"""Changes of jobs as they happen: the store is looked at once for all who listen, and not at all when nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from muybridge.errors import StoreError

if TYPE_CHECKING:
    from muybridge.jobs.record import Job
    from muybridge.jobs.store import JobStore

logger = logging.getLogger(__name__)

_WAIT_S = 1.0
_PAUSE_S = 0.02
"""Changes within it are told together."""


class Listener:
    """Somebody who is told of the jobs of one owner, the latest state of each.

    Attributes:
        owner: whose jobs.
        revision: of the latest change that was told.
        is_over: whether no more will come.
    """

    def __init__(self, owner: str) -> None:
        """Nothing has happened yet."""
        self.owner = owner
        self.revision = 0
        self.is_over = False
        self._changed: dict[str, Job] = {}
        self._removed: list[str] = []
        self._woken = asyncio.Event()

    def tell(self, jobs: Sequence[Job], removed: Iterable[str], revision: int) -> None:
        """Jobs have changed; what is not taken yet is replaced by what is newer."""
        self.revision = max(self.revision, revision)
        self._changed.update({job.id: job for job in jobs if job.owner == self.owner})
        for each in removed:
            self._changed.pop(each, None)
            self._removed.append(each)
        if self._changed or self._removed:
            self._woken.set()

    def end(self) -> None:
        """No more will come."""
        self.is_over = True
        self._woken.set()

    async def changes(self, seconds: float = _WAIT_S) -> tuple[list[Job], list[str]]:
        """Jobs that have changed since the last time, in the order of change, and ids of those that were removed.

        Waits for something to happen, but for some seconds at most.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return [], []
        self._woken.clear()
        changed, removed = sorted(self._changed.values(), key=lambda job: job.revision), self._removed
        self._changed, self._removed = {}, []
        return changed, removed


class Feed:
    """Tells listeners of changes."""

    def __init__(self, store: JobStore) -> None:
        """Nobody listens yet."""
        self._store = store
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @asynccontextmanager
    async def listening(self, owner: str) -> AsyncIterator[Listener]:
        """A listener that is told of every change from now on."""
        listener = Listener(owner)
        if self._is_closed:
            listener.end()
        self._listeners.add(listener)
        try:
            if self._task is None or self._task.done():
                revision = await run_in_threadpool(self._store.revision)
                if self._task is None or self._task.done():  # another may have begun meanwhile
                    self._task = asyncio.create_task(self._follow(revision))
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """End all streams, so that a server can stop."""
        self._is_closed = True
        for listener in self._listeners:
            listener.end()

    async def _follow(self, revision: int) -> None:
        news = await run_in_threadpool(self._store.news)
        try:
            while self._listeners and not self._is_closed:
                try:
                    revision = await self._told_since(revision)
                except StoreError as error:  # one that is away for a moment must not end the streams
                    logger.warning("changes of jobs cannot be read: %s", error)
                    await asyncio.sleep(_WAIT_S)
                await asyncio.sleep(_PAUSE_S)
                await run_in_threadpool(news.wait, _WAIT_S)
        finally:
            news.close()

    async def _told_since(self, revision: int) -> int:
        """Tell everybody what has happened since a revision; gives that of the last change."""
        owners = {listener.owner for listener in self._listeners}
        latest, jobs, removed = await run_in_threadpool(self._read, revision, owners)
        for listener in list(self._listeners):
            listener.tell(jobs, removed.get(listener.owner, ()), latest)
        return latest

    def _read(self, revision: int, owners: set[str]) -> tuple[int, list[Job], dict[str, list[str]]]:
        # First the number, so that what happens while this is read is read again, and not left out.
        latest = self._store.revision()
        removed = {owner: self._store.removed_since(revision, owner) for owner in owners}
        return latest, self._store.changed_since(revision), removed
