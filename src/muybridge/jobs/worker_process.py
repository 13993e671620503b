"""The process of one worker: `python -m muybridge.jobs.worker_process ID DEVICE`, told the rest by a pipe.

It ends when the pipe is closed, so that none outlives whoever started it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from typing import Any

from muybridge.errors import MuybridgeError
from muybridge.jobs.catalog import Catalog
from muybridge.jobs.process_settings import ServiceSettings
from muybridge.jobs.store import JobStore
from muybridge.jobs.worker import Worker, WorkerSettings
from muybridge.types import SettingsDict

SPOILT = 75
"""Exit code of a process that is to begin anew, and did its duty."""
_log = logging.getLogger(__name__)


def serve(settings: ServiceSettings, worker_id: str, device: str, tells_models: bool = True) -> Worker:
    """Open everything and make a worker, which is not running yet."""
    from muybridge.service.engine import Engine

    store, files, catalog = settings.open_store(), settings.open_files(), settings.open_catalog()
    engine = Engine(device, settings.memory, preview_folder=files.maps_folder)
    if tells_models:
        describe_models(store, catalog, engine)
    own = WorkerSettings(device, worker_id, settings.keep_seconds, settings.shows_previews)
    return Worker(store, files, catalog, engine, own)


def describe_models(store: JobStore, catalog: Catalog, engine: Any) -> None:
    """Say in the store what the models of a catalog can do; no weights are read."""
    known = store.models()
    found: dict[str, SettingsDict] = {}
    for name, place in catalog.places.get("models", {}).items():
        try:
            found[name] = engine.describe(place)
        except MuybridgeError as error:
            _log.warning("The model %s cannot be used: %s", name, error)
    if found != known:
        store.set_models(found)


def main() -> None:
    """Read settings from the pipe and work until told to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    warnings.simplefilter("ignore")  # notes for people at a terminal
    _, worker_id, device = sys.argv
    settings = ServiceSettings.from_line(sys.stdin.readline())
    try:
        worker = serve(settings, worker_id, device)
    except MuybridgeError as error:
        _log.error("%s", error)  # where it was raised says nothing to who runs the service
        sys.exit(2)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    threading.Thread(target=_stop_with_parent, args=(worker,), daemon=True).start()
    worker.run()
    logging.shutdown()
    sys.stderr.flush()
    # All is said and put in place; taking a process with large models apart takes seconds and changes nothing.
    os._exit(SPOILT if worker.is_spoilt else 0)


def _stop_with_parent(worker: Worker) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    worker.stop()


if __name__ == "__main__":
    main()
