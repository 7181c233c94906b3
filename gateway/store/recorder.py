"""The record of calls: every chat call's closed receipt becomes one row, written behind the calls' back.

No call ever waits for the database. Rows wait in memory, at most `MOST_WAITING` of them, and one task writes them in
batches, each row once: its key is the call's id, and writing it again changes nothing. What can be lost, and when:

- The database is gone: nothing at first, its rows wait and are tried again. Once the queue is full, the calls that
  come are not recorded, those that wait stay: the record has one hole, from then until the database is back.
- The process is stopped: what waits is written within `DRAIN_S`; only with a database that is gone it is lost.
- The process is killed: what was not yet written, which is the last half second.
- The database takes a batch but not one row of it: that row.

Whatever is lost is counted (`gateway_records_lost_total`, a kill excepted), and the log says it once at each change of
state, never once a call. So this is a record to look at and to add up; money that must survive a crash needs more.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

from msgspec import Struct
from prometheus_client import Counter

from gateway.core.call import Call
from gateway.core.receipt import Receipt
from gateway.core.resources import Clock
from gateway.core.usage import Usage

MOST_WAITING = 10_000
"""Rows that wait for the database, about a kilobyte each."""
EVERY_S = 0.5
"""How often rows are written."""
BATCH = 500
"""Rows in one write; as soon as so many wait, they are written before their time."""
LONGEST_PAUSE_S = 10.0
"""Between two attempts at a database that is gone; the first pauses are shorter."""
DRAIN_S = 5.0
"""At a stop, how long it is tried to write what waits."""
LAST_TRY_S = 4.5
"""How much longer the try that is on its way by then may take. SQLite's ends by itself, and has to: the driver, cut
in the middle of a statement, may wait for itself for ever."""
DRAIN_PAUSE_S = 0.2
MOST_CHARS = 200
"""Of a text that a client or an upstream made up."""
MOST = 2**63 - 1
"""What a BIGINT holds."""

LOST = Counter("gateway_records_lost", "Calls whose record was lost.")

log = logging.getLogger("gateway")


class Record(Struct, frozen=True):
    """One call, as a row. No prompt, no answer, no secret."""

    id: str
    at: datetime
    """When it began."""
    operation: str
    principal: str
    user: str
    team: str
    model: str
    """As the client asked for it."""
    route: str
    provider: str
    """Of the attempt that answered, or the last that failed; empty when nobody was asked."""
    deployment: str
    outcome: str
    status: int
    error: str
    attempts: int
    stream: bool
    cache: str
    prompt_tokens: int | None
    """`None`, like every count of tokens: there was no answer."""
    completion_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    usage_estimated: bool
    cost_nusd: int | None
    """`None`: unknown, which is not nothing."""
    first_chunk_ms: float | None
    total_ms: float
    finish_reason: str
    config: str
    """The id of the configuration that it ended on."""


class Unusable(Exception):
    """The database cannot be used as it is. The message says why, for people, and holds no secret."""


class Table(Protocol):
    """Where records are kept."""

    async def open(self) -> None:
        """Connect, and make what is missing; may be called again.

        Raises:
            Unusable: it cannot be connected to, or is not fit for us.
        """
        ...

    async def insert(self, records: Sequence[Record]) -> int:
        """Write `records`, those that are there already excepted; return how many it will never take.

        Raises:
            Unusable: nothing can be written at the moment, and it is unknown whether something was.
        """
        ...

    async def close(self) -> None:
        """Disconnect. It may be opened again."""
        ...


class Recorder:
    """Takes receipts, and writes them when it can."""

    def __init__(self, table: Table, clock: Clock, *, most_waiting: int = MOST_WAITING) -> None:
        self._table = table
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting = deque[Record]()
        self._wake = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._opened = False
        self._stop_at_s = math.inf
        self._gone = False
        self._lost = 0

    @property
    def state(self) -> str:
        """Return `ok`, or `gone` since a write failed and until one succeeds."""
        return "gone" if self._gone else "ok"

    def take(self, config: str, call: Call, receipt: Receipt) -> None:
        """Have the closed `receipt` written soon; never waits.

        Args:
            config: the id of the configuration that the call ends on.
            call: the call, as it came.
            receipt: what became of it.
        """
        if len(self._waiting) >= self._most_waiting:
            self._lose(1)
            return
        began_at = self._clock.wall() - (self._clock.now() - receipt.began_s)
        self._waiting.append(record_of(config, call, receipt, datetime.fromtimestamp(began_at, UTC)))
        if len(self._waiting) == BATCH and not self._gone:
            self._wake.set()

    async def check(self) -> None:
        """See that the database can be used, before anything relies on it; one in use already is not asked.

        Raises:
            Unusable: it cannot.
        """
        if self._writing is None:
            try:
                await self._table.open()
            finally:
                await self._table.close()  # a connection belongs to its event loop, and the next may be another

    def start(self) -> None:
        """Begin to write. A database that is gone just now is tried again and again."""
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._keep_writing())

    async def close(self) -> None:
        """Write what waits, with no new try after `DRAIN_S`, and disconnect."""
        self._stop_at_s = asyncio.get_running_loop().time() + DRAIN_S
        self._wake.set()
        if self._writing is not None:
            await asyncio.wait((self._writing,), timeout=DRAIN_S + LAST_TRY_S)
            self._writing.cancel()
            await asyncio.wait((self._writing,), timeout=1.0)
        if left := len(self._waiting):
            LOST.inc(left)
            log.error("at the stop, %d calls could not be recorded any more", left)
            self._waiting.clear()
        await self._table.close()

    async def _keep_writing(self) -> None:
        """Write every half second, and less often while the database is gone, until told to stop."""
        pause_s = EVERY_S
        while True:
            written = await self._write_all()
            if self._stop_at_s < math.inf:
                if written or asyncio.get_running_loop().time() + DRAIN_PAUSE_S > self._stop_at_s:
                    return
                await asyncio.sleep(DRAIN_PAUSE_S)
            else:
                pause_s = EVERY_S if written else min(2 * pause_s, LONGEST_PAUSE_S)
                await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _write_all(self) -> bool:
        """Write what waits; return whether the database was there."""
        try:
            if not self._opened:
                await self._table.open()
                self._opened = True
            while self._waiting:
                batch = list(islice(self._waiting, BATCH))
                unfit = await self._table.insert(batch)
                for _ in batch:  # only now: who is stopped in between writes them again, to no effect
                    self._waiting.popleft()
                self._found()
                if unfit:
                    self._lose(unfit)
        except Unusable as error:
            self._miss(str(error))
            return False
        except Exception:
            if not self._gone:
                log.exception("a bug of ours, in the record of calls")
            self._miss("see above")
            return False
        self._found()
        if self._lost:
            log.warning("calls are recorded again; %d are missing", self._lost)
            self._lost = 0
        return True

    def _lose(self, count: int) -> None:
        LOST.inc(count)
        if not self._lost:
            log.error("calls are missing from the record: %d wait to be written", len(self._waiting))
        self._lost += count

    def _miss(self, why: str) -> None:
        if not self._gone:
            log.error("the database is gone: calls go on, and their records wait (%s)", why)
        self._gone = True
        self._opened = False  # what comes back may be another: restored, or taken over by a replica

    def _found(self) -> None:
        if self._gone:
            log.warning("the database is back")
        self._gone = False


def record_of(config: str, call: Call, receipt: Receipt, at: datetime) -> Record:
    """Return the row of one call that began `at`."""
    tried, principal, usage = receipt.answered_by, receipt.principal, receipt.usage
    counts = _counts(usage)
    return Record(
        id=receipt.call_id,
        at=at,
        operation=call.operation,
        principal=_text(principal.id),
        user=_text(principal.user),
        team=_text(principal.team),
        model=_text(receipt.model),
        route=_text(receipt.route),
        provider=_text(tried.provider) if tried else "",
        deployment=_text(tried.deployment) if tried else "",
        outcome=receipt.outcome,
        status=receipt.status,
        error=_text(receipt.error),
        attempts=len(receipt.tried),
        stream=call.stream,
        cache=receipt.cache,
        prompt_tokens=counts[0],
        completion_tokens=counts[1],
        cached_tokens=counts[2],
        cache_write_tokens=counts[3],
        reasoning_tokens=counts[4],
        usage_estimated=usage is not None and usage.estimated,
        cost_nusd=_cost_nusd(receipt),
        first_chunk_ms=None if receipt.first_chunk_s is None else round(receipt.first_chunk_s * 1000, 1),
        total_ms=round(receipt.total_s * 1000, 1),
        finish_reason=_text(receipt.finish_reason),
        config=config,
    )


def _counts(usage: Usage | None) -> tuple[int | None, int | None, int | None, int | None, int | None]:
    if usage is None:
        return None, None, None, None, None
    return (
        min(usage.prompt_tokens, MOST),
        min(usage.completion_tokens, MOST),
        min(usage.cached_tokens, MOST),
        min(usage.cache_write_tokens, MOST),
        min(usage.reasoning_tokens, MOST),
    )


def _cost_nusd(receipt: Receipt) -> int | None:
    """Return what the call cost. Where nobody was asked that is nothing, though `cost` may not have been reached."""
    if receipt.cost_nusd is None:
        return None if receipt.tried else 0
    return min(receipt.cost_nusd, MOST)


def _text(said: str) -> str:
    """Return what every database takes: PostgreSQL refuses the character NUL, and both half a surrogate pair."""
    said = said[:MOST_CHARS]
    if said.isprintable():
        return said
    return said.encode("utf-8", "replace").decode().replace("\0", "?")
