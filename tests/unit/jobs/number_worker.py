"""A worker process over the engine of numbers: `python number_worker.py STORE FILES`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.unit.jobs.engines import NumberEngine

from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import FileStore
from muybridge.jobs.store import JobStore
from muybridge.jobs.worker import Worker, WorkerSettings, new_worker_id


def main() -> None:
    engine = NumberEngine(before_step=lambda _: time.sleep(0.002))
    store, files = JobStore.open(sys.argv[1], lease_seconds=5.0), FileStore.open(sys.argv[2])
    Worker(store, files, Catalog.scan(None), engine, WorkerSettings("cpu", new_worker_id("cpu"))).run()


if __name__ == "__main__":
    main()
