"""The table `calls`, in SQLite or PostgreSQL.

Rows are only ever inserted, so that many processes may write at once and none waits for another's lock. What is
missing is made at the first start. `schema_version` says which version of this file made it; version 1 is the first,
and with the first change the steps from one version to the next come here. A newer gateway's database is refused.
"""

import asyncio
import importlib
import os
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec.structs import asdict
from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from gateway.store.recorder import Record, Unusable

SCHEMA_VERSION = 1
CONNECT_S = 5.0
BUSY_S = 2.0
"""How long SQLite waits for another process that is writing: twice this, to open, is less than `LAST_TRY_S`."""
WAL_TRIES = 20
ANSWER_S = 10.0
"""How long opening, or writing a batch, may take in all."""
LOCK = 0x67617465776179
"""PostgreSQL's advisory lock of those who make tables: of several that start at once, one does."""

METADATA = MetaData()

VERSION = Table("schema_version", METADATA, Column("version", Integer, primary_key=True, autoincrement=False))


def _text(name: str) -> "Column[str]":
    return Column(name, Text, nullable=False)


def _count(name: str) -> "Column[int]":
    return Column(name, BigInteger)


CALLS = Table(
    "calls",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    *map(_text, ("operation", "principal", "user", "team", "model", "route", "provider", "deployment", "outcome")),
    Column("status", Integer, nullable=False),
    _text("error"),
    Column("attempts", Integer, nullable=False),
    Column("stream", Boolean, nullable=False),
    _text("cache"),
    *map(_count, ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")),
    Column("usage_estimated", Boolean, nullable=False),
    Column("cost_nusd", BigInteger),
    Column("first_chunk_ms", Double),
    Column("total_ms", Double, nullable=False),
    _text("finish_reason"),
    _text("config"),
    Index("calls_at", "at"),
    Index("calls_principal_at", "principal", "at"),
)


class CallTable:
    """The table, in the database at one URL; see `recorder.Table`.

    Raises:
        ValueError: the URL is none that we can use; the message quotes nothing of it.
    """

    def __init__(self, url: str) -> None:
        self._secrets = _secrets(url)
        self._file = ""
        self._failures: tuple[type[Exception], ...] = (
            *(SQLAlchemyError, sqlite3.Error, OSError, TimeoutError),
            *(ValueError, OverflowError),  # of a value that the driver cannot pass on
        )
        if url.startswith("sqlite:"):
            self._file = self._where = str(Path(_path(url)).absolute())
            self._cure = "its folder must exist, this user be allowed to write there, and the file be a database"
            self._engine = _sqlite(self._file)
            self._insert = sqlite.insert(CALLS).on_conflict_do_nothing()
        else:
            host = _host(url)
            self._where = f"PostgreSQL at {host or 'its usual place'}"
            self._cure = "the server must run, and `database:` be right; where that is empty nothing is recorded"
            # Imported here, like this module where there is a database at all: SQLite does not need it.
            asyncpg = importlib.import_module("asyncpg")
            self._failures += (asyncpg.PostgresError, asyncpg.InterfaceError)
            self._engine = _postgresql(url, asyncpg.connect)
            self._insert = postgresql.insert(CALLS).on_conflict_do_nothing()

    async def open(self) -> None:
        """Connect, make what is missing, and see that rows can be written.

        Raises:
            Unusable: one of these cannot be done.
        """
        try:
            if self._file:
                # In a thread of ours: one of aiosqlite's, of a file that cannot be opened, may outlive its event loop.
                await asyncio.to_thread(_use_wal, self._file)
            async with asyncio.timeout(ANSWER_S), self._engine.begin() as connection:
                await connection.run_sync(_prepare)
        except Unusable as error:
            await self.close()
            raise Unusable(f"{self._where}: {error}") from None
        except self._failures as error:
            await self.close()
            raise self._unusable(error, f"; {self._cure}") from None

    async def insert(self, records: Sequence[Record]) -> int:
        """Write `records`; return how many will never be taken.

        Raises:
            Unusable: the database is gone, or takes nothing.
        """
        try:
            await self._write(records)
        except self._failures as error:
            if not _is_of_a_row(error):
                raise self._unusable(error) from None
            if len(records) == 1:
                return 1
        else:
            return 0
        return sum([await self.insert([record]) for record in records])

    async def close(self) -> None:
        """Disconnect."""
        await self._engine.dispose()

    async def _write(self, records: Sequence[Record]) -> None:
        async with asyncio.timeout(ANSWER_S), self._engine.begin() as connection:
            await connection.execute(self._insert, [asdict(record) for record in records])

    def _unusable(self, error: Exception, cure: str = "") -> Unusable:
        why = _why(error)
        for secret in self._secrets:
            why = why.replace(secret, "••••")
        return Unusable(f"{self._where}: {why}{cure}")


def _prepare(connection: Connection) -> None:
    """Make the tables where they are missing.

    Raises:
        Unusable: there are others in their place.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # SQLite's lock of those who write
    else:
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    has_table = inspect(connection).has_table
    if not has_table(VERSION.name):
        if has_table(CALLS.name):
            raise Unusable("there is a table `calls` that is not ours; give the gateway a database of its own")
        connection.execute(CreateTable(VERSION))
    version = connection.execute(select(func.max(VERSION.c.version))).scalar()
    if version is None:
        connection.execute(VERSION.insert(), {"version": SCHEMA_VERSION})
    elif version > SCHEMA_VERSION:
        raise Unusable(
            f"its tables are of version {version}, and this gateway knows {SCHEMA_VERSION}; "
            "start the newer gateway that made them, or give this one another database"
        )
    if not has_table(CALLS.name):
        connection.execute(CreateTable(CALLS))
        for index in sorted(CALLS.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))
    # Nothing, as a row: a user who may not write, or a server that takes no writes, says so now.
    connection.execute(text("INSERT INTO calls (id) SELECT '' WHERE 1 = 0 ON CONFLICT DO NOTHING"))


def _sqlite(path: str) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=path),
        connect_args={"timeout": BUSY_S},
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _flush_seldom)
    return engine


def _use_wal(path: str) -> None:
    """Have others read while we write; the file remembers it.

    Raises:
        sqlite3.Error: it cannot be opened, or is no database.
    """
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        for left in reversed(range(WAL_TRIES)):
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or not left:
                    raise
            # SQLite waits here for some locks and not for others, so we do: or a stop might wait for it fifty times.
            time.sleep(BUSY_S / WAL_TRIES)


def _flush_seldom(connection: Any, _: object) -> None:
    """Flush to disk at checkpoints alone, not with every batch."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _postgresql(url: str, connect: Any) -> AsyncEngine:
    # asyncpg reads the URL itself, as libpq does: sslmode, several hosts, sockets, password files.
    creator = partial(connect, url, timeout=CONNECT_S)
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def _path(url: str) -> str:
    path = url.removeprefix("sqlite:///")
    if path.startswith(":memory:") or "?" in path or not path:
        raise ValueError(
            "expected a file: sqlite:///gateway.db in the working directory, or sqlite:////var/lib/gateway.db, "
            "without options"
        )
    return path


def _host(url: str) -> str:
    """Return the part of a PostgreSQL URL that may be shown."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    sound = all(re.fullmatch(r"(\[[^]]+]|[^:\[\]]*)(:\d+)?", one) for one in host.split(","))
    if not sound or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            "this is no URL of a PostgreSQL: expected postgresql://user:password@host:5432/database; "
            "characters such as / # ? @ in a password are written %2F %23 %3F %40"
        )
    return f"{host}{parts.path}"


def _secrets(url: str) -> list[str]:
    """Return what must not be shown, however a driver comes to quote it."""
    parts = urlsplit(url)
    said = parts.netloc.rpartition("@")[0].partition(":")[2]
    return [secret for secret in (said, unquote(said), *parse_qs(parts.query).get("password", [])) if secret]


def _is_of_a_row(error: Exception) -> bool:
    """Tell whether a row is at fault, and not the database: trying it again would not help."""
    if isinstance(error, IntegrityError | DataError | ValueError | OverflowError):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = str(getattr(cause, "sqlstate", None) or "")
    return state[:2] in ("22", "23") or isinstance(getattr(cause, "__cause__", None), ValueError)


def _why(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.errno:  # its own words differ between event loops
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    if isinstance(cause, ValueError):  # a driver's view of the URL, which it may quote
        return "its URL cannot be understood"
    return (str(cause) or type(cause).__name__).splitlines()[0]
