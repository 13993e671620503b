"""The tables of the store, and how an older store becomes one of this version."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1
MIGRATIONS: dict[int, Callable[[Connection], None]] = {}
"""From a version to the next one."""

metadata = MetaData()
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("owner", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("error_code", String(32)),
    Column("error_message", Text),
    Column("request", JSON, nullable=False),
    Column("model", String(512), nullable=False),
    Column("text", Text, nullable=False, default=""),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("expires", Float),
    Column("priority", Integer, nullable=False, default=0),
    Column("position", Float, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("skips", Integer, nullable=False, default=0),
    Column("skipped_at", Float),
    Column("worker", String(128)),
    Column("lease_until", Float),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("progress", Integer, nullable=False, default=0),
    Column("step", Integer, nullable=False, default=0),
    Column("steps", Integer, nullable=False, default=0),
    Column("segment", Integer, nullable=False, default=0),
    Column("segments", Integer, nullable=False, default=1),
    Column("phase", String(16)),
    Column("eta_seconds", Float),
    Column("preview_step", Integer),
    Column("revision", BigInteger, nullable=False),
    Column("results", JSON, nullable=False, default=dict),
    Column("width", Integer),
    Column("height", Integer),
    Column("num_frames", Integer),
    Column("fps", Float),
    Column("seed", BigInteger),
    Column("inference_time_s", Float),
    Column("stage_seconds", JSON, nullable=False, default=dict),
    Column("peak_memory_mb", Float),
    Column("cost", JSON),
    Column("idempotency_key", String(256)),
    Column("remixed_from", String(64)),
    Column("uploads", JSON, nullable=False, default=list),
    Column("redo", JSON),
    UniqueConstraint("owner", "idempotency_key"),
)
# Names of columns begin with "ix" in a namespace that PostgreSQL shares between tables of a schema.
Index("ix_jobs_queue", jobs.c.status, jobs.c.priority.desc(), jobs.c.position, jobs.c.number)
Index("ix_jobs_owner", jobs.c.owner, jobs.c.number)
Index("ix_jobs_revision", jobs.c.revision)

removed = Table(
    "removed_jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
    Column("at", Float, nullable=False),
)
workers = Table(
    "workers",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("host", String(256), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("job", String(64)),
    Column("loaded", JSON, nullable=False, default=list),
    Column("started", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("beat", Float, nullable=False),
)
models = Table(
    "models",
    metadata,
    Column("name", String(512), primary_key=True),
    Column("description", JSON, nullable=False),
)
meta = Table(
    "meta",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
