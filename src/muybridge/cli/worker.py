"""`muybridge worker`: carries out the jobs of a store that a server elsewhere fills."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muybridge.cli.console import errors
from muybridge.cli.service_flags import end_when_asked, seconds_of_days
from muybridge.errors import ConfigError

if TYPE_CHECKING:
    from muybridge.jobs.process_settings import ServiceSettings

_STORE = "MUYBRIDGE_STORE"


def worker(
    store: Annotated[str, typer.Option(envvar=_STORE, help="The jobs: postgresql://HOST/NAME, or a file.")],
    files: Annotated[str, typer.Option(envvar="MUYBRIDGE_FILES", help="Their files: a folder, or a URL of fsspec.")],
    models: Annotated[Path | None, typer.Option(help="Folder of models, as of muybridge serve.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Such as cuda:0 or cpu; repeat for more.")] = None,
    memory: Annotated[str | None, typer.Option(help="Weights that a worker keeps warm, as in 12GB.")] = None,
    keep_days: Annotated[float | None, typer.Option(help="Remove finished videos after so long.", min=0)] = None,
    no_preview: Annotated[bool, typer.Option("--no-preview", help="No live previews.")] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Run on this Ray cluster instead: auto, or HOST:PORT.")
    ] = None,
) -> None:
    """Make the videos that a server elsewhere has taken in, one at a time on each device, until Ctrl+C."""
    if ray_address is not None and device:
        raise ConfigError("--device is about workers here; with --ray-address the cluster says which there are.")
    _require_extra(store)
    from muybridge.files.byte_counts import parse_bytes
    from muybridge.jobs.process_settings import ServiceSettings

    settings = ServiceSettings(
        store,
        files,
        models=None if models is None else str(models),
        keep_seconds=seconds_of_days(keep_days),
        memory=None if memory is None else parse_bytes(memory),
        shows_previews=not no_preview,
    )
    if ray_address is not None:
        run_on_ray(settings, ray_address)
    else:
        _run(settings, device or [])


def run_on_ray(settings: ServiceSettings, address: str, count: int | None = None) -> None:
    """Workers on a Ray cluster, until the process is told to end."""
    from muybridge.jobs.ray_workers import RayWorkers

    workers = RayWorkers(settings, address)
    workers.start(count)
    try:
        _wait()
    finally:
        workers.stop()


def _run(settings: ServiceSettings, named: list[str]) -> None:
    from muybridge.jobs.supervisor import Supervisor, checked_devices, devices_here

    devices = checked_devices(named) if named else devices_here()
    supervisor = Supervisor(settings, devices)
    supervisor.start()
    errors.print(f"Waiting for jobs on {', '.join(devices)}  (Ctrl+C ends it)")
    try:
        _wait()
    finally:
        supervisor.stop()


def _wait() -> None:
    """Until Ctrl+C or a polite request to end."""
    end_when_asked()
    while True:
        signal.pause()


def _require_extra(store: str) -> None:
    import importlib.util

    needed = ["sqlalchemy", "fsspec", *(["psycopg"] if store.startswith("postgres") else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        extra = "postgres" if missing == ["psycopg"] else "serve"
        raise ConfigError(f"A worker needs {', '.join(missing)}. Install with: pip install 'muybridge[{extra}]'")
