"""What is in the database, read without the code that wrote it."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import asyncpg

from gateway.core.receipt import Receipt
from gateway.store.recorder import Record, record_of
from tests.standins import StillClock, call_of

EVERYTHING = 'SELECT * FROM calls ORDER BY "at", id'


async def rows_of(url: str, query: str = EVERYTHING) -> list[dict[str, Any]]:
    """Return the rows that `query` finds."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            done = connection.execute(query)
            found = [dict(row) for row in done]
            connection.commit()
            return found
    connection = await asyncpg.connect(url, timeout=30)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def recorded(url: str, calls: int = 1) -> bool:
    """Tell whether so many calls are there already; before the first, perhaps not even a table is."""
    try:
        return len(await rows_of(url)) >= calls
    except (sqlite3.OperationalError, asyncpg.UndefinedTableError):
        return False


async def eventually(holds: Callable[[], Any], within_s: float = 30.0) -> None:
    """Wait until `holds()`, which may be a coroutine, is true."""
    until_s = time.monotonic() + within_s
    while True:
        said = holds()
        if await said if asyncio.iscoroutine(said) else said:
            return
        assert time.monotonic() < until_s, "not in time"
        await asyncio.sleep(0.02)


def a_record(id: str, **changes: Any) -> Record:
    """Return the row of a call that was answered."""
    receipt = Receipt(id, "fast", "fast", outcome="finished")
    values = {name: getattr(row, name) for row in [_record(receipt)] for name in Record.__struct_fields__}
    return Record(**{**values, **changes})


def _record(receipt: Receipt) -> Record:
    return record_of("c0ffee", call_of(StillClock()), receipt, datetime.now(UTC))
