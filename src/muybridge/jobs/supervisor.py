"""Keeps one worker process a device alive, takes back what dead ones had, and has old files removed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from muybridge.errors import ConfigError, MuybridgeError
from muybridge.jobs.cleaning import Cleaner
from muybridge.jobs.process_settings import ServiceSettings
from muybridge.jobs.worker import new_worker_id
from muybridge.jobs.worker_process import SPOILT

_log = logging.getLogger(__name__)
_TICK_S = 0.2
_CLEAN_EVERY_S = 300.0
_AFTER_ERROR_S = 1.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_LIVED_S = 60.0
"""A process that lived so long had no fault of its making."""
GRACE_S = 45.0
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")


def devices_here() -> list[str]:
    """Graphics cards of this machine, or the processor; nothing of CUDA is started."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        count = len([each for each in visible.split(",") if each.strip() and each.strip() != "-1"])
    else:
        count = len([each for each in Path("/dev").glob("nvidia*") if each.name.removeprefix("nvidia").isdigit()])
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def checked_devices(names: Sequence[str]) -> list[str]:
    """Names of devices, one worker each.

    Raises:
        ConfigError: one that is none.
    """
    for name in names:
        if _DEVICE.fullmatch(name) is None:
            raise ConfigError(f"There is no device {name!r}. Give cpu, mps, cuda or cuda:0, cuda:1 and so on.")
    return list(names)


@dataclass
class _Place:
    """A device, and the process that works there now."""

    device: str
    worker_id: str = ""
    process: subprocess.Popen[str] | None = None
    began: float = 0.0
    pause: float = _FIRST_PAUSE_S
    due: float = 0.0


class Supervisor:
    """Workers of this machine, and the housekeeping of the store."""

    def __init__(self, settings: ServiceSettings, devices: Sequence[str]) -> None:
        """Nothing runs yet.

        Raises:
            StoreError: the store or its files cannot be opened.
        """
        self._settings = settings
        self._store = settings.open_store()
        self._cleaner = Cleaner(
            self._store, settings.open_files(), settings.most_bytes, keep_seconds=settings.keep_seconds
        )
        self._places = [_Place(device) for device in devices]
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def process_ids(self) -> list[int]:
        """Of workers that run."""
        return [each.process.pid for each in self._places if each.process is not None]

    def start(self) -> None:
        """Run in a thread."""
        self._thread = threading.Thread(target=self.run, name="supervisor", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Keep workers alive until `stop`."""
        next_reaping = next_cleaning = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            try:
                for place in self._places:
                    self._look_after(place, now)
                if now >= next_reaping:
                    self._store.reap()
                    next_reaping = now + self._settings.lease_seconds / 3
                if now >= next_cleaning:
                    next_cleaning = now + _CLEAN_EVERY_S  # also of one that fails, which takes long
                    self._cleaner.clean()
            except (MuybridgeError, OSError) as error:  # a store or a disk that is away for a moment
                _log.warning("%s", error)
                self._stopping.wait(_AFTER_ERROR_S)
            except Exception:  # without its housekeeping a service would go on as if all were well
                _log.exception("The housekeeping of the service failed; it goes on")
                self._stopping.wait(_AFTER_ERROR_S)
            self._stopping.wait(_TICK_S)

    def request_stop(self) -> None:
        """End soon; may be called by a signal handler."""
        self._stopping.set()

    def stop(self, grace_seconds: float = GRACE_S) -> None:
        """Let workers give their jobs back, and end them; those that do not end in time are killed."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        running = [each.process for each in self._places if each.process is not None]
        for process in running:
            process.terminate()
        until = time.monotonic() + grace_seconds
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
            _close(process)
        for place in self._places:
            if place.worker_id:
                self._store.abandon(place.worker_id, is_to_blame=False)
        self._store.close()

    def _look_after(self, place: _Place, now: float) -> None:
        process = place.process
        if process is not None:
            if (status := process.poll()) is None:
                return
            self._bury(place, status, now)
        if now >= place.due:
            self._begin(place, now)

    def _bury(self, place: _Place, status: int, now: float) -> None:
        if place.process is not None:
            _close(place.process)
        place.process = None
        self._store.abandon(place.worker_id)
        if status == SPOILT or now - place.began > _LIVED_S:
            place.pause = _FIRST_PAUSE_S
        place.due = now if status == SPOILT else now + place.pause
        place.pause = min(2 * place.pause, _LONGEST_PAUSE_S)
        if status != SPOILT:
            _log.warning("The worker of %s ended (%s); another one is started.", place.device, status)

    def _begin(self, place: _Place, now: float) -> None:
        place.worker_id, place.began = new_worker_id(place.device), now
        environment, device = dict(os.environ), place.device
        if (index := device.removeprefix("cuda:")).isdigit():
            seen = environment.get("CUDA_VISIBLE_DEVICES", "")
            names = [each.strip() for each in seen.split(",") if each.strip()]
            environment["CUDA_VISIBLE_DEVICES"] = names[int(index)] if int(index) < len(names) else index
            device = "cuda"
        place.process = subprocess.Popen(
            [sys.executable, "-m", "muybridge.jobs.worker_process", place.worker_id, device],
            stdin=subprocess.PIPE,
            env=environment,
            text=True,
        )
        stdin = place.process.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended at once, which is seen at the next look
                stdin.write(self._settings.to_line())
                stdin.flush()


def _close(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
