"""The application: every address of the service, and its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from muybridge.api import easyanimate, events, health, models, session, settings_files, uploads, videos
from muybridge.api.access import Access
from muybridge.api.costs import Costs, Planner
from muybridge.api.decoding import Decoder, DecoderHere
from muybridge.api.errors import handle_errors
from muybridge.api.feed import Feed
from muybridge.api.guard import Guard
from muybridge.api.metrics import StoreCollector
from muybridge.api.service import Service
from muybridge.api.settings import ApiSettings
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import FileStore
from muybridge.jobs.store import JobStore
from muybridge.version import __version__

_ABOUT = "Videos by diffusion models with motion modules. Follows OpenAI's /v1/videos, with vLLM-Omni's further fields."


def create_app(
    settings: ApiSettings,
    store: JobStore,
    files: FileStore,
    catalog: Catalog,
    planner: Planner | None = None,
    page: Path | None = None,
    decoder: Decoder | None = None,
) -> FastAPI:
    """The application.

    Args:
        settings: how it is offered.
        store: of jobs.
        files: of uploads and results.
        catalog: of models.
        planner: says what a request costs, so that one that cannot fit is refused.
        page: folder of the page that is served at `/`.
        decoder: reads files of others; by default in this process.
    """
    feed, costs, reader = Feed(store), Costs(planner), decoder or DecoderHere()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        costs.begin()
        yield
        feed.close()
        costs.close()
        reader.close()

    # No pages of documentation: theirs load from other hosts.
    app = FastAPI(
        title="Muybridge", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    answered: Counter[tuple[str, int]] = Counter()
    app.state.service = Service(settings, store, files, catalog, costs, Access(settings.tokens), feed, decoder=reader)
    app.state.collector = StoreCollector(store, answered)
    app.add_middleware(Guard, hosts=settings.hosts, limits=settings.limits, answered=answered)
    handle_errors(app)
    # Of two that match, the first is taken: /v1/videos/sync before /v1/videos/{video_id}.
    for each in (session, uploads, settings_files, events, videos, models, health):
        app.include_router(each.router)
    if "easyanimate" in settings.also:
        app.state.easyanimate_models = {}
        app.include_router(easyanimate.router)
    if page is not None:
        app.mount("/", StaticFiles(directory=page, html=True), name="page")
    return app
