"""One request and its answer: what the caller holds, and the one timer that bounds it."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Protocol

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine.failures import timed_out
from gateway.engine.inflate import Inflater
from gateway.engine.timer import Timer
from gateway.engine.transport import Deadline

SILENCE = ("idle", "throughput")
"""Clocks that run while the upstream says nothing; the others bound how long it may go on."""
MOST_UNREAD_BYTES = 256 * 1024
"""Once so much of a body waits to be read, the upstream is not listened to until it was."""


class Line(Protocol):
    """The connection, as its exchange sees it."""

    def drop(self) -> None:
        """Close it and give its place in the pool back."""
        ...

    def listen(self) -> None:
        """Go on reading after a pause."""
        ...


class Exchange:
    """An answer as it arrives. Satisfies `Response`.

    It owns its connection while one is set: whoever closes the exchange before the body's end closes that connection
    with it. When the body's last byte has arrived the connection goes back to the pool by itself, read or not.

    The timer is set when a wait begins and stays set through later waits. It rings early when the caller has moved the
    deadline on, and is then set again; it is set anew when the deadline was moved to an earlier time. A connection that
    carries one exchange after the other lends its own.
    """

    __slots__ = (
        "_deadline",
        "_drains",
        "_inflater",
        "_loop",
        "_parts",
        "_waiter",
        "begun",
        "connection",
        "ended",
        "failure",
        "headers",
        "received",
        "stale",
        "status",
        "timer",
        "unread",
        "wants_body",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline: Deadline, wants_body: bool) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.wants_body = wants_body
        self.connection: Line | None = None
        self.begun = False
        """The head is here."""
        self.ended = False
        """The whole body is here."""
        self.stale = False
        """The reused connection had been closed by the upstream before our request reached it."""
        self.failure: Unreachable | TimedOut | None = None
        self.received = 0
        """Bytes of the body."""
        self.unread = 0
        self._parts: list[bytes] = []
        self._inflater: Inflater | None = None
        self._loop = loop
        self._deadline = deadline
        self._waiter: asyncio.Future[None] | None = None
        self._drains = False
        self.timer: Timer | None = None
        """Its connection's, or its own."""

    # ── The caller's side ────────────────────────────────────────────────────────────────────────────────────────

    async def more(self, *, packed: bool = False) -> bytes:
        """Return all of the body that has come since it was asked for last; nothing at its end.

        `packed`: in the content-encoding that it came in.
        """
        if self._inflater is not None and not packed:
            return await self._inflater.more(partial(self.more, packed=True))
        while not self._parts:
            if self.failure is not None:
                raise self.failure
            if self.ended:
                return b""
            await self.wait()
        parts, unread = self._parts, self.unread
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.unread = 0
        connection = self.connection
        if connection is not None:
            # An upstream that is faster than its reader never makes us wait, so `total` has to be looked at here.
            # Others are about the upstream's silence: what it has said is not late because its reader was slow.
            deadline = self._deadline
            if deadline.clock not in SILENCE and deadline.at_s <= self._loop.time():
                self.fail(timed_out(deadline.clock))
                assert self.failure is not None
                raise self.failure
            if unread > MOST_UNREAD_BYTES:
                connection.listen()
        return data

    async def read(self, most: int) -> bytes:
        """Return the whole body, of at most `most` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.more():
            size += len(data)
            if size > most:
                raise self._too_long(most)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def whole(self) -> bytes | None:
        """Return the body if all of it is here and none was taken; `None`: it has to be waited for, or unpacked."""
        if not self.ended or self._inflater is not None:
            return None
        self.unread, parts = 0, self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drain(self, within_s: float) -> None:
        """Have no more of it, and the connection closed if the body does not end soon."""
        if not self.ended and self.failure is None:
            self._parts.clear()
            self._drains = True
            self._deadline.at_s = self._loop.time() + within_s
            self._ring_at(self._deadline.at_s)

    def close(self) -> None:
        """Let go of it; a body that is not here to its end takes the connection with it."""
        if not self.ended:
            self.fail(Unreachable("the answer was closed before its end"))

    # ── The sender's side ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def settled(self) -> bool:
        """The rest of its request has nothing to say any more: it failed, or was refused."""
        return self.failure is not None or self.stale or self.ended or self.status >= 400

    async def next_of(self, pieces: AsyncGenerator[bytes, None]) -> bytes | None:
        """Return the next piece of a body that is sent; `None`: it has ended, or nobody wants it any more, though the
        client who sends it be silent.

        Raises:
            BadRequest: the client left, or what it sends is not what it has to be.
        """
        coming = asyncio.ensure_future(anext(pieces, None))
        coming.add_done_callback(lambda _: self.wake())
        try:
            while not coming.done() and not self.settled:
                await self.wait()
            return coming.result() if coming.done() else None
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})  # only a generator that stands still can be closed

    # ── The connection's side ────────────────────────────────────────────────────────────────────────────────────

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Take the head.

        Raises:
            Unreachable: the body is packed in a way that we do not know.
        """
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding and encoding != "identity" and self.wants_body:
            self._inflater = Inflater(encoding)
        self.status, self.headers, self.begun = status, headers, True

    def take(self, pieces: list[bytes]) -> None:
        """Take pieces of the body."""
        self._parts += pieces
        size = sum(map(len, pieces))
        self.received += size
        self.unread += size

    def end(self) -> None:
        """Know that the body is here to its end; no clock bounds it any more."""
        self.ended, self.connection = True, None
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.waiting = None
            if not timer.stays:
                timer.stop()

    def fail(self, failure: Unreachable | TimedOut) -> None:
        """Know that no more will come; what has come can still be read."""
        if self.failure is None:
            self.failure = failure
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.drop()
        if self.timer is not None:
            self.timer.stop()
            self.timer = None
        self.wake()

    def wake(self) -> None:
        """Have the caller look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def wait(self) -> "asyncio.Future[None]":
        """Return what is done when something happened, `failure` by the deadline included.

        A future and no coroutine: a frame less for each wake-up to go through.
        """
        waiter = self._waiter = self._loop.create_future()
        timer, at_s = self.timer, self._deadline.at_s
        if timer is None or at_s < timer.at_s:
            self._ring_at(at_s)
        return waiter

    # ── The timer's side ─────────────────────────────────────────────────────────────────────────────────────────

    def late(self) -> None:
        """The timer's time has come; the deadline's may have been moved."""
        if self._drains or (self._waiter is not None and not self._waiter.done()):
            at_s = self._deadline.at_s
            if at_s - self._loop.time() > 0.001:  # event loops round to a millisecond
                self._ring_at(at_s)
            else:
                self.fail(timed_out(self._deadline.clock))

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _ring_at(self, at_s: float) -> None:
        if at_s <= self._loop.time():
            self.fail(timed_out(self._deadline.clock))
            return
        if self.timer is None:
            self.timer = Timer(self._loop)
            self.timer.waiting = self
        self.timer.ring_at(at_s)

    def _too_long(self, most: int) -> Unreachable:
        too_long = Unreachable(f"the upstream's answer is longer than {most} bytes")
        self.fail(too_long)
        return too_long
