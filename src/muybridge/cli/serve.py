"""`muybridge serve`: the API, the page and the workers of one machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muybridge.cli.console import output
from muybridge.cli.flags import Flag, with_flags
from muybridge.cli.service_flags import end_when_asked, places, seconds_of_days
from muybridge.errors import ConfigError
from muybridge.types import SettingsView

if TYPE_CHECKING:
    from muybridge.api.settings import ApiSettings
    from muybridge.jobs.process_settings import ServiceSettings

TOKENS = "MUYBRIDGE_TOKEN"
_KEEP, _WORK, _WHO = "What is kept", "Workers", "Who may call"

FLAGS = (
    Flag("data", "data", Path, "Folder of jobs and files; ~/.local/share/muybridge by default.", panel=_KEEP),
    Flag("store", "store", str, "Jobs elsewhere, shared by servers and workers: postgresql://HOST/NAME.", panel=_KEEP),
    Flag("files", "files", str, "Files elsewhere: a folder, or a URL of fsspec.", panel=_KEEP),
    Flag("keep-days", "keep_days", float, "Remove finished videos after so long.", panel=_KEEP, least=0),
    Flag("quota", "quota", str, "Remove the oldest videos beyond so much, as in 100GB.", panel=_KEEP),
    Flag("workers", "workers", int, "How many; one a device by default, 0 for none.", panel=_WORK, least=0),
    Flag("device", "device", list[str], "Such as cuda:0 or cpu; repeat for more.", panel=_WORK),
    Flag("memory", "memory", str, "Weights that a worker keeps warm, as in 12GB.", panel=_WORK),
    Flag("ray-address", "ray_address", str, "A Ray cluster that runs the workers, instead of here.", panel=_WORK),
    Flag("no-preview", "no_preview", bool, "No live previews.", panel=_WORK),
    Flag("token-file", "token_file", Path, f"Tokens of who may call, one a line; {TOKENS} may hold some.", panel=_WHO),
    Flag("no-token", "no_token", bool, "Let everybody in who can reach it.", panel=_WHO),
    Flag("allow-host", "allow_host", list[str], "A name that it is called by; repeat for more.", panel=_WHO),
    Flag("also-api", "also_api", list[str], "Also answer another program's own calls, by its name.", panel=_WHO),
)


@with_flags(FLAGS)
def serve(
    host: Annotated[str, typer.Option(help="Where to listen; others than this machine need tokens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 7860,
    models: Annotated[
        Path | None, typer.Option(help="Folder with models, motion_adapters, loras, vaes, controls, embeddings.")
    ] = None,
    **given: Any,
) -> None:
    """Serve videos: an API like OpenAI's, a page, and workers that make them, until Ctrl+C."""
    _require_extra()
    api = _api_settings(host, given)
    settings = _service_settings(models, given)
    is_elsewhere = given["ray_address"] is not None
    if is_elsewhere and given["device"]:
        raise ConfigError("--device is about workers here; with --ray-address the cluster says which there are.")
    devices = [] if is_elsewhere else _devices(given["workers"], given["device"] or [])
    opened = _listening(host, port)
    with contextlib.closing(opened), _working(settings, devices, given["ray_address"], given["workers"]):
        _run(api, settings, opened, devices)


def _api_settings(host: str, given: SettingsView) -> ApiSettings:
    from muybridge.api.settings import ApiSettings, is_local, read_tokens

    tokens = read_tokens(given["token_file"], os.environ.get(TOKENS))
    if not tokens and not given["no_token"] and not is_local(host):
        raise ConfigError(
            f"Listening on {host} lets others in, and there is no token. Give --token-file, or {TOKENS}; --no-token "
            "lets everybody in who can reach it."
        )
    names = _names(host, given["allow_host"] or [], bool(tokens))
    return ApiSettings(tokens, names, also=tuple(given["also_api"] or ()))


def _service_settings(models: Path | None, given: SettingsView) -> ServiceSettings:
    from muybridge.files.byte_counts import parse_bytes
    from muybridge.jobs.process_settings import ServiceSettings

    store, files = places(given["data"], given["store"], given["files"])
    keep_days, quota, memory = given["keep_days"], given["quota"], given["memory"]
    return ServiceSettings(
        store,
        files,
        models=None if models is None else str(models),
        keep_seconds=seconds_of_days(keep_days),
        most_bytes=None if quota is None else parse_bytes(quota),
        memory=None if memory is None else parse_bytes(memory),
        shows_previews=not given["no_preview"],
    )


def _require_extra() -> None:
    import importlib.util

    needed = ("fastapi", "uvicorn", "python_multipart", "sqlalchemy", "prometheus_client", "fsspec")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"A service needs {', '.join(missing)}. Install with: pip install 'muybridge[serve]'")


def _names(host: str, given: list[str], has_tokens: bool) -> tuple[str, ...]:
    """Names that it may be called by. A token guards from pages that reach it by names of their own making."""
    from muybridge.api.settings import LOCAL_HOSTS, is_local

    if is_local(host):
        return (*LOCAL_HOSTS, *given)
    return ("*",) if has_tokens and not given else (*LOCAL_HOSTS, host, socket.gethostname(), *given)


def _devices(workers: int | None, named: list[str]) -> list[str]:
    """Of each worker, the device."""
    from muybridge.jobs.supervisor import checked_devices, devices_here

    found = checked_devices(named) if named else devices_here()
    if workers is None:
        return found
    return [found[index % len(found)] for index in range(workers)]


@contextlib.contextmanager
def _working(
    settings: ServiceSettings, devices: list[str], ray_address: str | None, count: int | None
) -> Iterator[None]:
    """Workers here or on a cluster, and the housekeeping, for as long as the block lasts."""
    from muybridge.jobs.supervisor import Supervisor

    with contextlib.ExitStack() as stack:
        supervisor = Supervisor(settings, devices)
        end_when_asked()
        supervisor.start()
        stack.callback(supervisor.stop)
        if ray_address is not None:
            from muybridge.jobs.ray_workers import RayWorkers

            workers = RayWorkers(settings, ray_address)
            stack.callback(workers.stop)
            workers.start(count)
        yield


def _listening(host: str, port: int) -> socket.socket:
    from muybridge.api.server import listening

    return listening(host, port)


def _run(api: ApiSettings, settings: ServiceSettings, opened: socket.socket, devices: list[str]) -> None:
    from muybridge.api.app import create_app
    from muybridge.api.decoding import DecodingProcess
    from muybridge.api.server import Server, address_of
    from muybridge.jobs.planner import Planner
    from muybridge.ui import page_folder

    store, files, catalog = settings.open_store(), settings.open_files(), settings.open_catalog()
    planner = Planner(settings, devices[0]) if devices else None
    app = create_app(api, store, files, catalog, planner, page_folder(), DecodingProcess())
    try:
        Server(app, lambda: output.print(f"Muybridge is at {address_of(opened)}  (Ctrl+C ends it)")).run([opened])
    finally:
        if planner is not None:
            planner.close()
        store.close()
