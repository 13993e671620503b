"""What the processes of a service are told when they start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from muybridge.jobs.catalog import Catalog
from muybridge.jobs.files import FileStore
from muybridge.jobs.store import LEASE_S, JobStore


@dataclass(frozen=True)
class ServiceSettings:
    """Where a service keeps what; the same for all of its processes.

    Attributes:
        store: of jobs, see `JobStore.open`.
        files: see `FileStore.open`.
        models: folder of models; None for the shipped ones only.
        extra: more names of networks, see `Catalog.scan`.
        cache: for files that lie elsewhere.
        keep_seconds: how long finished jobs are kept; None for ever.
        most_bytes: that files may take together; None for any number.
        memory: bytes of weights that a worker keeps warm; None as of the engine.
        shows_previews: whether there are previews.
        lease_seconds: how long a worker may be silent.
    """

    store: str
    files: str
    models: str | None = None
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cache: str | None = None
    keep_seconds: float | None = None
    most_bytes: int | None = None
    memory: int | None = None
    shows_previews: bool = True
    lease_seconds: float = LEASE_S

    def to_line(self) -> str:
        """As one line; it may hold a password, so it goes to a process by a pipe, never by its arguments."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> ServiceSettings:
        """From what `to_line` gave."""
        return cls(**json.loads(line))

    def open_store(self) -> JobStore:
        """Raises StoreError as `JobStore.open`."""
        return JobStore.open(self.store, self.lease_seconds)

    def open_files(self) -> FileStore:
        """Raises StoreError as `FileStore.open`."""
        return FileStore.open(self.files, None if self.cache is None else Path(self.cache))

    def open_catalog(self) -> Catalog:
        """Raises ConfigError as `Catalog.scan`."""
        return Catalog.scan(None if self.models is None else Path(self.models), self.extra)
