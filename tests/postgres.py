"""A PostgreSQL of this machine for the time of the tests: Debian's, in a temporary folder, not waiting for disks."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def is_there() -> bool:
    """Whether there is one to start, and somebody else than root to run it."""
    return bool(_BINARIES) and (os.getuid() != 0 or shutil.which("runuser") is not None)


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Start one; gives the URL of its server, without a database."""
    # Not in a folder of pytest's, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="muybridge-postgres-") as folder:
        yield from _running(Path(folder))


def _running(folder: Path) -> Iterator[str]:
    binaries, data = _BINARIES[-1], folder / "data"
    before: list[str] = []
    if os.getuid() == 0:  # which it refuses to be run by
        before = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    initialise = [binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C.UTF-8"]
    subprocess.run([*before, *map(str, initialise)], check=True, capture_output=True, cwd=folder)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
    control = [*before, str(binaries / "pg_ctl"), "-D", str(data), "-w"]
    start = [*control, "-l", str(data / "log"), "-o", options, "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=folder)


def emptied(server: str) -> str:
    """Empty the database of a server; gives its URL. Making another one for each test would take seconds."""
    import psycopg

    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    return f"{server}/postgres"
