"""`muybridge jobs`: what waits, what is being made, what became of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muybridge.cli.console import Json, output, print_json
from muybridge.cli.service_flags import places, seconds_of_days, usual_folder
from muybridge.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from muybridge.jobs.record import Job
    from muybridge.jobs.store import JobStore

app = typer.Typer(no_args_is_help=True, help="See and steer the jobs of a service.")
Data = Annotated[Path | None, typer.Option(help="Folder of the service; ~/.local/share/muybridge by default.")]
Store = Annotated[str | None, typer.Option(envvar="MUYBRIDGE_STORE", help="Jobs elsewhere: postgresql://HOST/NAME.")]
Id = Annotated[str, typer.Argument(help="Of the job, as in video_..., or how it begins.")]
_SHOWN = 14
"""Letters of an id in a table: enough to name it by."""
_FIELDS = (
    *("id", "status", "model", "created", "started", "finished", "progress", "step", "steps", "phase", "eta_seconds"),
    *("priority", "attempts", "worker", "error_code", "error_message", "width", "height", "num_frames", "fps", "seed"),
    *("inference_time_s", "stage_seconds", "peak_memory_mb", "results", "request"),
)
_WORKER_FIELDS = ("id", "host", "device", "pid", "state", "job", "loaded", "started", "seen")


@app.callback()
def choose() -> None:
    """See and steer the jobs of a service."""


@app.command("list")
def listing(
    data: Data = None,
    store: Store = None,
    status: Annotated[str | None, typer.Option(help="queued, in_progress, completed or failed.")] = None,
    limit: Annotated[int, typer.Option(help="How many; the newest.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Show jobs, the newest first, and the workers."""
    from muybridge.jobs.store import Search

    opened = _opened(data, store)
    found, has_more = opened.page(Search(status=status), limit=limit)
    workers = [each for each in opened.workers() if each.is_alive]
    if as_json:
        print_json({"jobs": [_plain(job) for job in found], "has_more": has_more, "workers": len(workers)})
        return
    from rich.table import Table

    table = Table("id", "status", "model", "prompt", "", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # what is cut off cannot be copied
    for job in found:
        table.add_row(
            job.id[:_SHOWN], _said(job), job.model, _short(job.text or str(job.request.get("prompt", ""))), _note(job)
        )
    output.print(table, soft_wrap=False)
    counts = opened.counts().by_status
    output.print(", ".join(f"{number} {name}" for name, number in counts.items()) + f"; {len(workers)} workers")


@app.command()
def show(job: Id, data: Data = None, store: Store = None, as_json: Json = False) -> None:
    """Show all that is known of a job."""
    found = _found(_opened(data, store), job)
    if as_json:
        print_json(_plain(found))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _plain(found).items():
        if value not in (None, {}, []):
            table.add_row(name, str(value))
    output.print(table)


@app.command()
def cancel(job: Id, data: Data = None, store: Store = None) -> None:
    """End a job: at once where it waits, within a step where it is being made."""
    opened = _opened(data, store)
    found = opened.cancel(_found(opened, job).id)
    if found is not None:
        output.print(f"{found.id}: {'ends with its next step' if found.cancel_requested else _said(found)}")


@app.command()
def retry(job: Id, data: Data = None, store: Store = None) -> None:
    """Let a job that failed wait again."""
    opened = _opened(data, store)
    found = opened.retry(_found(opened, job).id)
    if found is not None:
        output.print(f"{found.id}: {found.status}")


@app.command()
def clean(
    data: Data = None,
    store: Store = None,
    files: Annotated[
        str | None, typer.Option(envvar="MUYBRIDGE_FILES", help="Files elsewhere: a folder, or a URL of fsspec.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(help="Also remove finished jobs that ended so many days ago.", min=0)
    ] = None,
    quota: Annotated[str | None, typer.Option(help="Also remove the oldest beyond so much, as in 100GB.")] = None,
    as_json: Json = False,
) -> None:
    """Remove what is not to be kept: expired jobs, uploads of none, files of jobs long gone."""
    from muybridge.files.byte_counts import parse_bytes
    from muybridge.jobs.cleaning import Cleaner
    from muybridge.jobs.files import FileStore

    _, place_of_files = places(data, store, files)
    opened = _opened(data, store)
    place = FileStore.open(place_of_files)
    most_bytes = None if quota is None else parse_bytes(quota)
    keep_seconds = seconds_of_days(older_than)
    cleaned = Cleaner(opened, place, most_bytes, keep_seconds=keep_seconds).clean()
    if as_json:
        print_json({"jobs": list(cleaned.jobs), "uploads": list(cleaned.uploads), "remains": list(cleaned.remains)})
        return
    output.print(
        f"removed {len(cleaned.jobs)} jobs, {len(cleaned.uploads)} uploads, files of {len(cleaned.remains)} others"
    )


@app.command()
def workers(
    data: Data = None,
    store: Store = None,
    here: Annotated[bool, typer.Option("--here", help="Of this machine; fails where none is alive.")] = False,
    as_json: Json = False,
) -> None:
    """Show the workers that are alive, and what they do."""
    import socket

    found = [each for each in _opened(data, store).workers() if each.is_alive]
    if here:
        found = [each for each in found if each.host == socket.gethostname()]
        if not found:
            raise NotFoundError("No worker of this machine is alive. Start one with muybridge worker.")
    if as_json:
        print_json([{name: getattr(each, name) for name in _WORKER_FIELDS} for each in found])
        return
    from rich.table import Table

    table = Table("host", "device", "process", "state", "job", "models", box=None, pad_edge=False)
    for each in found:
        job = "" if each.job is None else each.job[:_SHOWN]
        table.add_row(each.host, each.device, str(each.pid), each.state, job, ", ".join(each.loaded))
    output.print(table)


def _opened(data: Path | None, store: str | None) -> JobStore:
    from importlib.util import find_spec

    if find_spec("sqlalchemy") is None:
        raise ConfigError("Jobs need sqlalchemy. Install with: pip install 'muybridge[serve]'")
    from muybridge.jobs.store import JobStore

    path = (data or usual_folder()) / "jobs.db"
    if store is None and not path.is_file():
        raise NotFoundError(f"There are no jobs in {path.parent}: no service has run there. Name its folder by --data.")
    return JobStore.open(store or str(path))


def _found(store: JobStore, beginning: str) -> Job:
    from muybridge.jobs.record import is_job_id

    found = [job] if is_job_id(beginning) and (job := store.get(beginning)) else store.beginning_with(beginning)
    if len(found) != 1:
        said = "no job" if not found else f"more than one job ({found[0].id}, {found[1].id})"
        raise NotFoundError(f"There is {said} {beginning!r:.60}. See muybridge jobs list.")
    return found[0]


def _plain(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in _FIELDS}


def _said(job: Job) -> str:
    return f"{job.status} {job.progress} %" if job.status == "in_progress" else job.status


def _note(job: Job) -> str:
    if job.status == "in_progress" and job.steps:
        left = "" if job.eta_seconds is None else f", {job.eta_seconds:.0f} s left"
        return f"step {job.step} of {job.steps}{left}"
    if job.status == "completed" and job.inference_time_s is not None:
        return f"{job.inference_time_s:.1f} s"
    return job.error_code or ""


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
