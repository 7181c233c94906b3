"""The tables, in SQLite or PostgreSQL, and how one version of them becomes the next.

What is missing is made at the first start. `schema_version` says which version of this file made it; an older
gateway's tables are brought to this version, a newer one's are refused.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from gateway.store.recorder import Unusable

SCHEMA_VERSION = 2
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

OBJECTS = Table(
    "objects",
    METADATA,
    *(Column(name, Text, primary_key=True) for name in ("owner", "kind", "id")),
    Column("at", Double, nullable=False),
    Column("expires", Double, nullable=False),
    _text("provider"),
    _text("deployment"),
    Column("data", LargeBinary, nullable=False),
    Index("objects_at", "owner", "kind", "at"),
    Index("objects_expires", "expires"),
)
"""What is kept for clients: see `core.resources.Stored`. The owner is part of the key, so that nobody's id can be
another's. Moments are seconds since 1970."""

TABLES = {CALLS: 1, OBJECTS: 2}
"""Each with the version that first had it. From 1 to 2 nothing else changed; the first change of a table that is
there already brings its own step."""


def prepare(connection: Connection) -> None:
    """Make the tables where they are missing, or bring them to this version, and see that they can be written.

    Raises:
        Unusable: there are others in their place.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # SQLite's lock of those who write
    else:
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    has_table = inspect(connection).has_table
    if not has_table(VERSION.name):
        connection.execute(CreateTable(VERSION))
    version = connection.execute(select(func.max(VERSION.c.version))).scalar() or 0
    if version > SCHEMA_VERSION:
        raise Unusable(
            f"its tables are of version {version}, and this gateway knows {SCHEMA_VERSION}; "
            "start the newer gateway that made them, or give this one another database"
        )
    for table, since in TABLES.items():
        if not has_table(table.name):
            _make(connection, table)
        elif version < since:
            raise Unusable(f"there is a table `{table.name}` that is not ours; give the gateway a database of its own")
    if not version:
        connection.execute(VERSION.insert(), {"version": SCHEMA_VERSION})
    elif version < SCHEMA_VERSION:
        connection.execute(VERSION.update(), {"version": SCHEMA_VERSION})
    # Nothing, as a row: a user who may not write, or a server that takes no writes, says so now.
    for table in TABLES:
        connection.execute(text(f"INSERT INTO {table.name} (id) SELECT '' WHERE 1 = 0 ON CONFLICT DO NOTHING"))
    connection.execute(text("DELETE FROM objects WHERE 1 = 0"))


def _make(connection: Connection, table: Table) -> None:
    connection.execute(CreateTable(table))
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        connection.execute(CreateIndex(index))
