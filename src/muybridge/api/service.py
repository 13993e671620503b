"""What the handlers of calls share, and who calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from muybridge.api.access import Access
from muybridge.api.costs import Costs
from muybridge.api.decoding import Decoder, DecoderHere
from muybridge.api.feed import Feed
from muybridge.api.settings import ApiSettings

if TYPE_CHECKING:
    from muybridge.jobs.catalog import Catalog
    from muybridge.jobs.files import FileStore
    from muybridge.jobs.store import JobStore


T = TypeVar("T")
P = TypeVarTuple("P")


@dataclass(frozen=True)
class Service:
    """What the handlers of calls share.

    Attributes:
        settings: how the service is offered.
        store: of jobs.
        files: of uploads and results.
        catalog: of models.
        costs: says what a request costs.
        access: knows callers.
        feed: tells of changes of jobs.
        making: held while a file is made of another, which takes memory.
        decoder: reads files of others.
        decoding: how many calls wait for it in threads, which others need too.
    """

    settings: ApiSettings
    store: JobStore
    files: FileStore
    catalog: Catalog
    costs: Costs
    access: Access
    feed: Feed
    making: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    decoder: Decoder = field(default_factory=DecoderHere)
    decoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))

    async def decode(self, work: Callable[[*P], T], *given: *P) -> T:
        """Carry out what asks the decoder in a thread, of which it takes few, however many calls wait for it."""
        return await to_thread.run_sync(work, *given, limiter=self.decoding)


def service_of(request: Request) -> Service:
    """The service that a call is for."""
    return request.app.state.service


async def owner_of(request: Request) -> str:
    """Who calls. Raises ApiError where nobody is known."""
    return service_of(request).access.owner_of(request)


Shared = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner_of)]
