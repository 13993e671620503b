"""Workers placed and restarted by Ray, on as many machines as its cluster has.

Ray only looks after processes; what there is to do, and what became of it, stays in the store. The loop is that of
every worker.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from muybridge.errors import ConfigError, StoreError
from muybridge.jobs.process_settings import ServiceSettings
from muybridge.jobs.worker import Worker, new_worker_id
from muybridge.types import SettingsDict

_log = logging.getLogger(__name__)
_STOP_S = 45.0
_AGAIN_S = 5.0


class _RayWorker:
    """What Ray makes an actor of; `work` lasts until `stop`, and is called again wherever Ray restarts the actor."""

    def __init__(self, line: str, device: str) -> None:
        self._line = line
        self._device = device
        self._worker: Worker | None = None
        self._stopping = threading.Event()

    def work(self) -> None:
        from muybridge.jobs.worker_process import serve

        settings = ServiceSettings.from_line(self._line)
        while not self._stopping.is_set():
            try:
                self._worker = serve(settings, new_worker_id(self._device), self._device)
            except StoreError as error:
                _log.warning("A worker cannot start, and tries again: %s", error)
                self._stopping.wait(_AGAIN_S)
                continue
            if self._stopping.is_set():
                return
            self._worker.run()
            if self._worker.is_spoilt:
                os._exit(1)  # Ray begins a new process

    def stop(self) -> None:
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop()

    def process_id(self) -> int:
        return os.getpid()


class RayWorkers:
    """Workers on a Ray cluster."""

    def __init__(self, settings: ServiceSettings, address: str | None = None, **init: Any) -> None:
        """Join a cluster; no worker runs yet.

        Args:
            settings: of the service; the store must be one that all machines reach.
            address: of the cluster, as of `ray.init`: "auto", `HOST:PORT` or `ray://...`; None starts one here.
            init: more arguments of `ray.init`.

        Raises:
            ConfigError: Ray is not installed, or there is no such cluster.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its new way, which it announces otherwise
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError("Workers on a cluster need Ray. Install with: pip install 'muybridge[ray]'") from error
        self._ray = ray
        self._settings = settings
        self._actors: list[Any] = []
        self._working: list[Any] = []
        self._is_own = not ray.is_initialized()
        if self._is_own:
            usual: SettingsDict = {"log_to_driver": False, "include_dashboard": False} if address is None else {}
            try:
                ray.init(address=address, **{**usual, **init})
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(f"There is no Ray cluster at {address!r}: {error}") from error

    def start(self, count: int | None = None) -> None:
        """Start workers: one for each graphics card of the cluster, or `count` on processors where it has none.

        Raises:
            StoreError: the store is a file, and the cluster has more than one machine.
        """
        nodes = [node for node in self._ray.nodes() if node.get("Alive")]
        if len(nodes) > 1 and not self._settings.store.startswith("postgres"):
            raise StoreError("A cluster of several machines needs a store that all reach; give postgresql://HOST/NAME.")
        cards = int(self._ray.cluster_resources().get("GPU", 0))
        needs: SettingsDict = {"num_gpus": 1} if cards else {"num_cpus": 1}
        wanted = (cards or 1) if count is None else count
        # Of two threads one works, and the other hears of the end.
        remote: Any = self._ray.remote
        kind = remote(max_restarts=-1, max_task_retries=-1, max_concurrency=4, **needs)(_RayWorker)
        line = self._settings.to_line()
        for _ in range(wanted):
            actor = kind.remote(line, "cuda" if cards else "cpu")
            self._actors.append(actor)
            self._working.append(actor.work.remote())

    def process_ids(self) -> Sequence[int]:
        """Of the workers."""
        return self._ray.get([actor.process_id.remote() for actor in self._actors])

    def stop(self) -> None:
        """Let workers give their jobs back, and end them; those that do not end in time are killed."""
        ending = [*(actor.stop.remote() for actor in self._actors), *self._working]
        if ending:
            # A worker hears of the end at once, but gives its job back only after the step that it is in.
            self._ray.wait(ending, num_returns=len(ending), timeout=_STOP_S)
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors, self._working = [], []
        if self._is_own:
            self._ray.shutdown()
