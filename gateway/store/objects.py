"""What is kept for clients, in SQLite or PostgreSQL: see `core.resources.Objects`.

An answer's last word waits until what is kept of it is written: a follow-up may come at once, and to another worker,
which has nothing but the database to go by. So a statement is waited for `PATIENCE_S` at most, and after one that
failed nothing is asked for `PAUSE_S`: answers go on without it, and whoever gave them says that they are not kept.

A statement is never cut, neither by that patience nor by a client that leaves (SQLite's driver, cut in the middle of
one, may wait for itself for ever): it ends by itself, and is only not waited for any longer. What has no connection by
then never gets one: a client that was told that something is not kept would find it otherwise.

What is on its way holds what it is to write. So there are `MOST_RUNNING` at once, and while the database is gone one
call at a time finds out whether it is back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import Unavailable
from gateway.core.resources import Clock, Stored
from gateway.store.database import Database, is_of_a_row
from gateway.store.recorder import Unusable
from gateway.store.schema import OBJECTS

CONNECTIONS = 4
"""To PostgreSQL, of one process."""
PATIENCE_S = 2.0
"""How long a call waits for one statement."""
PAUSE_S = 2.0
"""How long nothing is asked after a failure."""
MOST_RUNNING = 32
"""Statements that may have, or wait for, a connection at once; the others wait as long as their calls do."""
STOP_S = 5.0
"""At a stop, how long statements may take that are on their way: twice what SQLite waits for another's lock."""
SWEPT_AT_ONCE = 1_000
MOST_CHARS = 200
"""Of an owner's name or an id; longer ones are kept by their hash, or not at all."""

log = logging.getLogger("gateway")

T = TypeVar("T")
C = OBJECTS.c


class _Turn:
    """How far a statement is."""

    awaited = True
    begun = False
    """It is one of the `MOST_RUNNING`: it is not cut any more."""
    connected = False


class SqlObjects:
    """The table `objects`, in the database at one URL.

    Raises:
        ValueError: the URL is none that we can use; the message quotes nothing of it.
    """

    hint = ""

    def __init__(self, url: str, clock: Clock) -> None:
        self._database = Database(url, connections=CONNECTIONS)
        insert = self._database.insert(OBJECTS)
        changes = {name: insert.excluded[name] for name in ("at", "expires", "provider", "deployment", "data")}
        self._put = insert.on_conflict_do_update(index_elements=["owner", "kind", "id"], set_=changes)
        self._clock = clock
        self._opening = asyncio.Lock()
        self._opened = False
        self._gone = False
        self._asked_again_s = 0.0
        self._running = set[asyncio.Task[Any]]()
        self._places = asyncio.Semaphore(MOST_RUNNING)
        self._probe: _Turn | None = None
        """Finds out whether a database that was gone is back."""

    async def put(self, *stored: Stored) -> None:
        """Keep all of them, or none."""
        rows = [_row(one) for one in stored]
        if rows:
            await self._run(lambda connection: connection.execute(self._put, rows))

    async def update(self, stored: Stored, data: bytes) -> bool:
        """Replace the data of what is still as it was; return whether it was."""
        mine = and_(C.owner == _owner(stored.owner), C.kind == stored.kind, C.id == stored.id)
        statement = OBJECTS.update().where(mine, C.data == stored.data).values(data=data)
        return bool(await self._run(lambda connection: _count(connection, statement)))

    async def get(self, kind: str, owner: str, ids: Sequence[str]) -> dict[str, Stored]:
        """Return what is kept of `ids`."""
        possible = [id for id in dict.fromkeys(ids) if is_id(id)]
        if not possible:
            return {}
        mine = and_(C.owner == _owner(owner), C.kind == kind, C.id.in_(possible), self._alive())
        rows = await self._run(lambda connection: _rows(connection, select(OBJECTS).where(mine)))
        return {row.id: _stored(row, owner) for row in rows}

    async def newest(self, kind: str, owner: str, *, limit: int, after: str = "") -> list[Stored]:
        """Return the newest, newest first; those behind the one called `after`, where it is said."""
        mine = and_(C.owner == _owner(owner), C.kind == kind, self._alive())
        if after:
            if not (before := (await self.get(kind, owner, [after])).get(after)):
                return []
            mine = and_(mine, or_(C.at < before.at_s, and_(C.at == before.at_s, C.id < after)))
        query = select(OBJECTS).where(mine).order_by(C.at.desc(), C.id.desc()).limit(limit)
        return [_stored(row, owner) for row in await self._run(lambda connection: _rows(connection, query))]

    async def delete(self, kind: str, owner: str, *ids: str) -> int:
        """Forget them; return how many were there."""
        possible = [id for id in dict.fromkeys(ids) if is_id(id)]
        if not possible:
            return 0
        mine = and_(C.owner == _owner(owner), C.kind == kind, C.id.in_(possible), self._alive())
        return await self._run(lambda connection: _count(connection, OBJECTS.delete().where(mine)))

    async def sweep(self) -> int:
        """Delete what has expired; return how much it was."""
        key = tuple_(C.owner, C.kind, C.id)
        swept = 0
        while True:
            expired = select(C.owner, C.kind, C.id).where(C.expires <= self._clock.wall()).limit(SWEPT_AT_ONCE)
            statement = OBJECTS.delete().where(key.in_(expired))
            count = await self._run(lambda connection, statement=statement: _count(connection, statement))
            swept += count
            if count < SWEPT_AT_ONCE:
                return swept

    async def close(self) -> None:
        """Wait for what is on its way, and disconnect."""
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_S)
        await self._database.close()

    def _alive(self) -> ColumnElement[bool]:
        return C.expires > self._clock.wall()

    async def _run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Return what `work` does in a transaction of its own.

        Raises:
            Unavailable: the database is gone, or does not answer in time.
        """
        if self._clock.now() < self._asked_again_s or (self._gone and self._probe is not None):
            raise _unavailable()
        turn = _Turn()
        if self._gone:
            self._probe = turn
        task = asyncio.ensure_future(self._worked(work, turn))
        self._running.add(task)
        task.add_done_callback(lambda task: self._over(task, turn))
        try:
            done, _ = await asyncio.wait((task,), timeout=PATIENCE_S)
        finally:
            turn.awaited = False
            if not turn.begun:
                task.cancel()
            if turn.connected:
                self._probed(turn)  # a statement that hangs may do so for long: another has to try
        if not done:
            self._miss("no answer in time")
            raise _unavailable()
        try:
            result = task.result()
        except Unusable as error:
            self._miss(str(error))
            raise _unavailable() from None
        except self._database.failures as error:
            if not is_of_a_row(error):
                self._miss(str(self._database.unusable(error)))
            raise _unavailable() from None
        if self._gone:
            log.warning("what clients want to be kept can be kept again")
        self._gone = False
        return result

    async def _worked(self, work: Callable[[AsyncConnection], Awaitable[T]], turn: _Turn) -> T:
        async with self._places:
            turn.begun = True
            async with self._opening:
                if not turn.awaited:
                    raise _unavailable()
                if not self._opened:
                    await self._database.open()
                    self._opened = True
            async with self._database.engine.begin() as connection:
                if not turn.awaited:
                    raise _unavailable()
                turn.connected = True
                return await work(connection)

    def _probed(self, turn: _Turn) -> None:
        if self._probe is turn:
            self._probe = None

    def _over(self, task: "asyncio.Task[Any]", turn: _Turn) -> None:
        self._running.discard(task)
        self._probed(turn)
        if not task.cancelled():
            task.exception()  # taken note of, also where nobody waits for it any more

    def _miss(self, why: str) -> None:
        if not self._gone:
            log.error("what clients want to be kept cannot be: answers go on without it (%s)", why)
        self._gone = True
        self._opened = False  # what comes back may be another: restored, or taken over by a replica
        self._asked_again_s = self._clock.now() + PAUSE_S


def is_id(id: str) -> bool:
    """Tell whether anything can be called so: every database takes it, and so does a URL."""
    return 0 < len(id) <= MOST_CHARS and id.isascii() and id.isprintable()


def _owner(name: str) -> str:
    """Return a principal's id as every database takes it, no two alike."""
    if len(name) <= MOST_CHARS and name.isprintable():
        return name
    return f"sha256:{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _row(stored: Stored) -> dict[str, Any]:
    row = {name: getattr(stored, name) for name in ("kind", "id", "provider", "deployment", "data")}
    return {**row, "owner": _owner(stored.owner), "at": stored.at_s, "expires": stored.expires_s}


async def _rows(connection: AsyncConnection, query: Any) -> Sequence[Any]:
    return (await connection.execute(query)).all()


async def _count(connection: AsyncConnection, statement: Any) -> int:
    return (await connection.execute(statement)).rowcount


def _stored(row: Any, owner: str) -> Stored:
    return Stored(
        row.id,
        kind=row.kind,
        owner=owner,
        data=bytes(row.data),
        at_s=row.at,
        expires_s=row.expires,
        provider=row.provider,
        deployment=row.deployment,
    )


def _unavailable() -> Unavailable:
    return Unavailable("what is kept cannot be reached at the moment; ask again", retry_after_s=PAUSE_S)
