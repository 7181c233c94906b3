"""A database at a URL, SQLite's or PostgreSQL's: how it is connected to, and what is said when it cannot be."""

import asyncio
import importlib
import os
import re
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import URL, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.store.recorder import Unusable
from gateway.store.schema import prepare

CONNECT_S = 5.0
BUSY_S = 2.0
"""How long SQLite waits for another process that is writing: twice this, to open, is less than `LAST_TRY_S`."""
WAL_TRIES = 20
ANSWER_S = 10.0
"""How long opening, or writing a batch, may take in all."""


class Database:
    """A database, its tables ready for use.

    Args:
        url: where it is.
        connections: to PostgreSQL at most; a file of SQLite's has one.

    Raises:
        ValueError: the URL is none that we can use; the message quotes nothing of it.
    """

    def __init__(self, url: str, *, connections: int = 1) -> None:
        self._secrets = _secrets(url)
        self._file = ""
        self.failures: tuple[type[Exception], ...] = (
            *(SQLAlchemyError, sqlite3.Error, OSError, TimeoutError),
            *(ValueError, OverflowError),  # of a value that the driver cannot pass on
        )
        """What it may raise when it is gone, or takes nothing."""
        if url.startswith("sqlite:"):
            self._file = self.where = str(Path(_path(url)).absolute())
            self._cure = "its folder must exist, this user be allowed to write there, and the file be a database"
            self.engine = _sqlite(self._file)
            self.insert = sqlite.insert
        else:
            host = _host(url)
            self.where = f"PostgreSQL at {host or 'its usual place'}"
            self._cure = "the server must run, and `database:` be right; where that is empty nothing is recorded"
            # Imported here, like this module where there is a database at all: SQLite does not need it.
            asyncpg = importlib.import_module("asyncpg")
            self.failures += (asyncpg.PostgresError, asyncpg.InterfaceError)
            self.engine = _postgresql(url, asyncpg.connect, connections)
            self.insert = postgresql.insert

    async def open(self) -> None:
        """Connect, make what is missing, and see that rows can be written.

        Raises:
            Unusable: one of these cannot be done.
        """
        try:
            if self._file:
                # In a thread of ours: one of aiosqlite's, of a file that cannot be opened, may outlive its event loop.
                await asyncio.to_thread(_use_wal, self._file)
            async with asyncio.timeout(ANSWER_S), self.engine.begin() as connection:
                await connection.run_sync(prepare)
        except Unusable as error:
            await self.close()
            raise Unusable(f"{self.where}: {error}") from None
        except self.failures as error:
            await self.close()
            raise self.unusable(error, f"; {self._cure}") from None

    async def close(self) -> None:
        """Disconnect."""
        await self.engine.dispose()

    def unusable(self, error: Exception, cure: str = "") -> Unusable:
        """Return what to tell of a failure: nothing secret."""
        why = _why(error)
        for secret in self._secrets:
            why = why.replace(secret, "••••")
        return Unusable(f"{self.where}: {why}{cure}")


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


def _postgresql(url: str, connect: Any, connections: int) -> AsyncEngine:
    # asyncpg reads the URL itself, as libpq does: sslmode, several hosts, sockets, password files.
    creator = partial(connect, url, timeout=CONNECT_S)
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator,
        pool_size=connections,
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


def is_of_a_row(error: Exception) -> bool:
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
