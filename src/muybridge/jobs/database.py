"""The two databases that a store may lie in, and what differs between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from muybridge.errors import StoreError
from muybridge.jobs import tables

_CHANNEL = "muybridge_jobs"
_LOCK = 7_246_115  # of PostgreSQL's advisory locks, while tables are made
_POLL_S = 0.01


class Database:
    """Transactions, clocks and news of a SQLite file or a PostgreSQL database.

    Every change runs in a transaction that begins by raising the revision of the table. That makes changes follow one
    another, so that a revision that can be seen has all smaller ones before it, and what is read before a change is
    still true when it is made.
    """

    def __init__(self, engine: Engine, url: URL) -> None:
        """Of an engine of SQLAlchemy; see `open_database`."""
        self._engine = engine
        self._url = url
        self.is_sqlite = engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A view of one moment.

        Raises:
            StoreError: the database cannot be reached.
        """
        with _explained(), self._engine.connect().execution_options(is_reading=True) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[tuple[Connection, int]]:
        """A transaction with its revision; all of it happens, or nothing.

        Raises:
            StoreError: the database cannot be reached, or is full.
        """
        with _explained(), self._engine.begin() as connection:
            raised = update(tables.meta).where(tables.meta.c.name == "revision").values(value=tables.meta.c.value + 1)
            revision = connection.execute(raised.returning(tables.meta.c.value)).scalar_one()
            yield connection, revision
            if not self.is_sqlite:
                connection.execute(select(func.pg_notify(_CHANNEL, "")))

    @contextlib.contextmanager
    def quiet_write(self) -> Iterator[Connection]:
        """A transaction that nobody needs to hear of, such as a sign of life."""
        with _explained(), self._engine.begin() as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        """Seconds of the epoch; one clock for all machines."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())

    def lease_clock(self, connection: Connection) -> float:
        """Seconds of a clock that leases are measured with: on one machine, one that nobody sets."""
        return time.monotonic() if self.is_sqlite else self.now(connection)

    def news(self) -> News:
        """Something to wait for changes with."""
        return _SqliteNews(self._engine) if self.is_sqlite else _PostgresNews(self._url)

    def close(self) -> None:
        """Give connections back."""
        self._engine.dispose()


class News:
    """Waits for changes of a store that anybody makes."""

    def wait(self, seconds: float) -> bool:
        """Whether something may have changed; returns at once when it does."""
        raise NotImplementedError

    def close(self) -> None:
        """Give its connection back."""


class _SqliteNews(News):
    """A number in shared memory says whether another connection has written; asking takes microseconds."""

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.raw_connection()
        self._connection.detach()
        self._version = self._read()

    def _read(self) -> int:
        cursor = self._connection.cursor()
        try:
            return int(cursor.execute("pragma data_version").fetchone()[0])
        finally:
            cursor.close()

    def wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            version = self._read()
            if version != self._version:
                self._version = version
                return True
            if (left := until - time.monotonic()) <= 0:
                return False
            time.sleep(min(left, _POLL_S))

    def close(self) -> None:
        self._connection.close()


class _PostgresNews(News):
    def __init__(self, url: URL) -> None:
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection = self._listening()

    def _listening(self) -> Any:
        import psycopg

        try:
            connection = psycopg.connect(self._conninfo, autocommit=True)
            connection.execute(f"listen {_CHANNEL}")
        except psycopg.Error:
            return None  # asked again at the next wait
        return connection

    def wait(self, seconds: float) -> bool:
        import psycopg

        self._connection = self._connection or self._listening()
        try:
            if self._connection is None:
                time.sleep(seconds)
                return True
            return any(True for _ in self._connection.notifies(timeout=seconds, stop_after=1))
        except psycopg.Error:
            self._connection = None
            time.sleep(min(seconds, 1.0))
            return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def open_database(url: str) -> Database:
    """Open a database and see to it that it has the tables of this version.

    Args:
        url: `sqlite:///PATH`, a path, or `postgresql://...`.

    Raises:
        StoreError: it cannot be opened, is no such database, or was made by a newer version.
    """
    parsed = _parsed(url)
    try:
        is_file = parsed.get_backend_name() == "sqlite"
        # As many as a server answers with at once, and not what a database has for all who share it.
        room = {"pool_size": 10, "max_overflow": 40} if is_file else {"pool_size": 5, "max_overflow": 15}
        engine = create_engine(parsed, pool_pre_ping=not is_file, **room)
    except (NoSuchModuleError, ImportError) as error:
        raise StoreError(
            f"A store at {_shown(parsed)} needs a driver that is not installed ({error}). Install muybridge[postgres]."
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, parsed)
    try:
        with _explained(_shown(parsed)):
            _make_tables(engine, parsed)
    except StoreError:
        engine.dispose()
        raise
    return Database(engine, parsed)


def _parsed(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(f"{url!r} is no address of a store. Give sqlite:///PATH or postgresql://HOST/NAME.") from error
    if parsed.get_backend_name() in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise StoreError(f"{_shown(parsed)} is no store. Give sqlite:///PATH or postgresql://HOST/NAME.")
    return parsed


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _prepare_sqlite(engine: Engine, url: URL) -> None:
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be made ({error.strerror}). Choose a folder that you may write to."
        ) from error

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says so, not where the driver guesses
        cursor = connection.cursor()
        for setting in ("busy_timeout=15000", "journal_mode=wal", "synchronous=normal", "foreign_keys=on"):
            cursor.execute(f"pragma {setting}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # One that reads first and writes then would be refused at once if another had written in between.
        is_reading = connection.get_execution_options().get("is_reading", False)
        connection.exec_driver_sql("begin" if is_reading else "begin immediate")


@contextlib.contextmanager
def _explained(url: str = "") -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise StoreError("The store of jobs is used by too many at once. Try again.") from error
    except DBAPIError as error:
        where = f" at {url}" if url else ""
        said = " ".join(str(error.orig).split())
        raise StoreError(f"The store of jobs{where} cannot be used: {said}.") from error


def _make_tables(engine: Engine, url: URL) -> None:
    with engine.begin() as connection:
        if engine.dialect.name != "sqlite":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        found = inspect(connection).get_table_names()
        if "meta" not in found:
            if found:
                raise StoreError(f"The database {_shown(url)} holds other tables. Give jobs a database of their own.")
            tables.metadata.create_all(connection)
            connection.execute(
                insert(tables.meta),
                [{"name": "version", "value": tables.SCHEMA_VERSION}, {"name": "revision", "value": 0}],
            )
            return
        version = _version(connection)
    if version > tables.SCHEMA_VERSION:
        raise StoreError(
            f"The store {_shown(url)} was made by a newer version of this program (its tables are {version}, known "
            f"here are {tables.SCHEMA_VERSION}). Use that version, or another store."
        )
    if version < tables.SCHEMA_VERSION:
        _migrate(engine, url, version)


def _version(connection: Connection) -> int:
    return connection.execute(select(tables.meta.c.value).where(tables.meta.c.name == "version")).scalar_one()


def _migrate(engine: Engine, url: URL, version: int) -> None:
    """Bring older tables to this version, step by step, after a copy."""
    if engine.dialect.name == "sqlite":
        copy = Path(f"{url.database}.version-{version}")
        copy.unlink(missing_ok=True)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            raw = connection.connection.driver_connection
            if raw is not None:
                raw.execute("commit") if raw.in_transaction else None
                raw.execute("vacuum into ?", (str(copy),))
    with engine.begin() as connection:
        if engine.dialect.name != "sqlite":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        now = _version(connection)
        if engine.dialect.name != "sqlite" and now < tables.SCHEMA_VERSION:
            for name in inspect(connection).get_table_names():
                if "_version_" not in name:
                    connection.execute(text(f'create table "{name}_version_{now}" as table "{name}"'))
        for step in range(now, tables.SCHEMA_VERSION):
            tables.MIGRATIONS[step](connection)
        connection.execute(
            update(tables.meta).where(tables.meta.c.name == "version").values(value=tables.SCHEMA_VERSION)
        )
