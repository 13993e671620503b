"""Jobs on a cluster of Ray. Each of its actors has a watched process, so that nothing that goes wrong reaches Ray."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from muybridge.data.preparation.engine.job import Engine, Finished, Job, ended
from muybridge.data.preparation.engine.watched import TRIES, WatchedProcess
from muybridge.data.preparation.stage import Stage
from muybridge.errors import ConfigError, MuybridgeError, PreparationError

_LOOK_S = 1.0
_ANSWER_S = 10.0
_STORE_BYTES = 100 << 20  # of a cluster of one's own; what goes through it are lines of text


def check_reachable(address: str, seconds: float = _ANSWER_S) -> None:
    """Whether anybody answers at an address of a cluster; Ray itself tries for many minutes, without a word.

    Args:
        address: HOST:PORT, with ray:// or without; others, as auto, are for Ray to find.
        seconds: to wait.

    Raises:
        PreparationError: nobody does.
    """
    try:
        parts = urlsplit(f"//{address.removeprefix('ray://')}")
        host, port = parts.hostname, parts.port
    except ValueError:  # no address that a port could be told from
        return
    if not host or port is None:
        return
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no name of a machine, or is silent"
        raise PreparationError(
            f"Nobody answers at {address} ({why}). Check the address, and whether the cluster runs (ray status)."
        ) from error


class RayEngine(Engine):
    """One job at a time for each of several actors; files must be found under the same paths on all machines."""

    def __init__(
        self, stages: Sequence[Stage], work: Path, workers: int | None, memory_bytes: int | None, address: str | None
    ) -> None:
        """With the stages that jobs count.

        Args:
            stages: that jobs count.
            work: the folder that they may write into.
            workers: how many actors; by default, and at most, one for each processor of the cluster.
            memory_bytes: that the process of each may have; None for all there is.
            address: of a cluster; None for one on this machine, which ends with the engine.

        Raises:
            ConfigError: Ray is not installed.
        """
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError("The engine ray needs Ray: pip install 'muybridge[ray]'.") from error
        self._ray: Any = ray
        self._arguments = (tuple(stages), work, memory_bytes)
        self._workers = workers
        self._address = address
        self._folder: str | None = None
        self._actors: deque[Any] = deque()
        self._running: dict[Any, tuple[Any, Job, int]] = {}

    def __enter__(self) -> Self:
        if not self._ray.is_initialized():
            self._connect()
        most = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        count = min(self._workers or most, most)  # others would wait for a processor for ever
        self._actors.extend(self._new_actor() for _ in range(count))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in (*self._actors, *(actor for actor, _, _ in self._running.values())):
            self._ray.kill(actor)
        self._actors.clear()
        self._running.clear()
        if self._folder is not None:
            self._ray.shutdown()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def room(self) -> int:
        """How many more jobs it takes now."""
        return len(self._actors)

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._give(self._actors.popleft(), job, 0)

    def results(self) -> list[Finished]:
        """What came of jobs that are over; none after a while."""
        ready, _ = self._ray.wait(list(self._running), timeout=_LOOK_S)
        return [finished for each in ready for finished in self._taken(each)]

    def _connect(self) -> None:
        if self._address is not None:
            check_reachable(self._address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if self._address is not None:
                self._ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
                return
            # Its sockets lie in there, and their paths must be short.
            self._folder = tempfile.mkdtemp(prefix="ray")
            self._ray.init(
                num_cpus=self._workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_STORE_BYTES,
                _temp_dir=self._folder,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "a cluster on this machine" if self._address is None else f"the cluster {self._address}"
            raise PreparationError(f"There is no connection to {where}: {error}") from error

    def _new_actor(self) -> Any:
        return self._ray.remote(Supervisor).options(num_cpus=1, max_restarts=0).remote(*self._arguments)

    def _give(self, actor: Any, job: Job, tries: int) -> None:
        self._running[actor.run.remote(job)] = (actor, job, tries)

    def _taken(self, future: Any) -> list[Finished]:
        actor, job, tries = self._running.pop(future)
        try:
            found = self._ray.get(future)
        except self._ray.exceptions.RayError:  # its machine is gone, or was short of memory
            actor, tries = self._new_actor(), tries + 1
            if tries < TRIES:
                self._give(actor, job, tries)
                return []
            found = [ended(job, "crashed", "crashed", "the machine that had it went away")]
        self._actors.append(actor)
        if isinstance(found, str):
            raise PreparationError(found)
        return found


class Supervisor:
    """What runs in an actor: one watched process."""

    def __init__(self, stages: Sequence[Stage], work: Path, memory_bytes: int | None) -> None:
        """For the stages that jobs count."""
        # New processes load the program of the one that starts them again; Ray's takes long, and is of no use there.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._process = WatchedProcess(stages, work, memory_bytes)

    def run(self, job: Job) -> list[Finished] | str:
        """What came of a job, or why no job can be run; never raises."""
        try:
            return self._run(job)
        except MuybridgeError as error:
            return str(error)
        except Exception as error:  # Ray would try it again for ever
            return f"{type(error).__name__}: {error}"

    def _run(self, job: Job) -> list[Finished]:
        process, found = self._process, []
        process.give(job)
        while not process.is_free:
            connection.wait([process.pipe], min(process.seconds_left, _LOOK_S))
            found += process.look()
        return found
