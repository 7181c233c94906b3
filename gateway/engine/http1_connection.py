"""One HTTP/1.1 connection: bytes out, and httptools' parser over the bytes that come in."""

import asyncio
import re
from collections.abc import Coroutine
from contextlib import aclosing
from functools import lru_cache
from typing import Any, Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.core.call import Upload
from gateway.core.errors import Unreachable
from gateway.engine.failures import broke_off
from gateway.engine.http1_exchange import MOST_UNREAD_BYTES, Exchange
from gateway.engine.timer import Timer

MOST_HEAD_BYTES = 64 * 1024
"""A longer head is none. The same bounds trailers, and chunk extensions between two pieces of a body."""
SLICE_BYTES = 256 * 1024
"""A longer request body is written in slices, each when the one before it has left."""
IDLE_S = 20.0
"""How long a connection is kept unused: less than the servers that upstreams run behind wait (60 s and more)."""
STALE_WITHIN_S = 1.0
"""An upstream that had hung up before our request says so within a round trip. What dies later may have worked."""


class Home(Protocol):
    """The pool, as its connections see it."""

    def release(self, connection: "Connection") -> None:
        """Take back a connection that may be used again."""
        ...

    def free(self) -> None:
        """Take back the place of a connection that is gone."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Know that a connection is closed."""
        ...


class Connection(asyncio.Protocol):
    """A connection is owned by one exchange at a time, or idle in the pool, or closed.

    It goes back to the pool in one place only, when an answer's last byte has arrived, the request was sent whole,
    both sides want to keep it, and not a byte too many has come. Every other end of an exchange (closed, cancelled,
    timed out, broken) closes it, so no cancellation can leave a half-read connection for the next call.
    """

    __slots__ = (
        "_body",
        "_broken",
        "_fields",
        "_interim",
        "_keep",
        "_parser",
        "_paused",
        "_quiet_bytes",
        "_reading",
        "_transport",
        "_until_close",
        "_writing",
        "asked_s",
        "exchange",
        "home",
        "idle_s",
        "idle_since_s",
        "loop",
        "lost",
        "old_at_s",
        "on_body",
        "on_header",
        "timer",
        "used",
    )

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self.home = home
        self.loop = loop
        self.exchange: Exchange | None = None
        self.used = False
        """It has carried an answer before."""
        self.lost = False
        self.idle_s = IDLE_S
        self.idle_since_s = 0.0
        self.old_at_s = 0.0
        """From then on it is not used again."""
        self.asked_s = 0.0
        self.timer = Timer(loop, stays=True)
        self._transport: asyncio.Transport | None = None
        self._fields: dict[bytes, bytes] = {}
        self.on_header = self._fields.__setitem__
        """Gathers the head, and trailers, which nobody reads: a call of ours for each header took 5 µs an answer."""
        self._body: list[bytes] = []
        self.on_body = self._body.append
        """Gathers the pieces of a body that come in one go."""
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._paused = False
        self._reading = True
        self._writing = False
        self._quiet_bytes = 0
        self._interim = False
        self._until_close = False
        self._keep = False
        self._broken = ""

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, exchange: Exchange, head: bytes, body: bytes | Upload) -> Coroutine[Any, Any, None] | None:
        """Send a request; return what is still to be awaited of that. The exchange tells what becomes of it.

        It is `stale` when this was a reused connection that the upstream had closed already: the caller may ask again
        on a new one, and still holds the place in the pool. That is safe, though the request may be no idempotent one,
        because a server that closes an idle connection has not read what came too late: no byte of an answer has
        arrived, and the end came within a round trip of asking (`STALE_WITHIN_S`). A connection that dies later, or
        that was new, or that said a single byte, may have had its request carried out: never again.

        Raises:
            Unreachable: it is closed, though it was new.
        """
        transport = self._transport
        if transport is None or self.lost or transport.is_closing():
            self._closed_before_asking(exchange)
            return None
        self._fields.clear()  # of the answer before; nothing else of it is left, or this would not be used again
        self._quiet_bytes = 0
        if exchange.timer is not None:
            exchange.timer.stop()
        self.exchange, exchange.connection, exchange.timer = exchange, self, self.timer
        self.timer.waiting = exchange
        self.asked_s = self.loop.time()
        if isinstance(body, bytes) and len(body) <= SLICE_BYTES:
            transport.write(head + body)
            return None
        transport.write(head)
        self._writing = True
        if isinstance(body, bytes):
            return self._write(transport, exchange, body)
        return self._pass_on(transport, exchange, body)

    def _closed_before_asking(self, exchange: Exchange) -> None:
        exchange.stale = self.used
        if not self.used:
            self.home.free()
            raise Unreachable("the upstream closed the connection before it was asked")

    async def _write(self, transport: asyncio.Transport, exchange: Exchange, body: bytes) -> None:
        """Write a long body as fast as it is taken; an answer of refusal that comes early ends it."""
        view = memoryview(body)
        sent = 0
        while sent < len(view):
            if exchange.settled:
                return
            if self._paused:
                await exchange.wait()
            else:
                transport.write(view[sent : sent + SLICE_BYTES])
                sent += SLICE_BYTES
        self._writing = False

    async def _pass_on(self, transport: asyncio.Transport, exchange: Exchange, upload: Upload) -> None:
        """Write a body as it comes, and no faster than it is taken; an answer of refusal that comes early ends it."""
        left = upload.length
        async with aclosing(upload.pieces()) as pieces:
            while (piece := await exchange.next_of(pieces)) is not None:
                while self._paused and not exchange.settled:
                    await exchange.wait()
                if exchange.settled:
                    return
                if left is None:
                    transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                else:
                    transport.write(piece)
                    left -= len(piece)
                    self._writing = left != 0  # the answer to the last byte may be here before the body says its end
        if exchange.settled:
            return
        if left is None:
            transport.write(b"0\r\n\r\n")
        self._writing = False

    # ── The exchange's side ──────────────────────────────────────────────────────────────────────────────────────

    def drop(self) -> None:
        """Close it at once and give its place back. No lingering: an unsent rest is not worth waiting for."""
        self.exchange = None
        self.abort()
        self.home.free()

    def listen(self) -> None:
        """Go on reading after a pause."""
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio's side ───────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one too, though not by inheritance

    def data_received(self, data: bytes) -> None:
        """Parse what came, and tell the exchange."""
        exchange, parser = self.exchange, self._parser
        if exchange is None or parser is None:
            self.abort()  # nobody asked: a 408 for an idle connection, or an answer too many
            return
        before, room = exchange.received, MOST_HEAD_BYTES - self._quiet_bytes
        self._quiet_bytes += len(data)
        damage: Exception | None = None
        try:
            if exchange.begun or len(data) <= room:
                parser.feed_data(data)
            else:
                parser.feed_data(data[:room])
                if exchange.begun:
                    parser.feed_data(data[room:])
        except HttpParserCallbackError:
            raise  # a bug of ours: asyncio logs it and closes the connection
        except (HttpParserError, HttpParserUpgrade) as error:
            damage = error
        if self._body:
            if not exchange.ended and not self._broken:
                exchange.take(self._body)
            self._body.clear()  # what comes behind an end is nobody's
        if damage is not None:
            self._fail(exchange, self._broken or "the upstream's answer is no HTTP/1.1", damage)
            return
        if exchange.received != before:
            self._quiet_bytes = 0
        elif self._quiet_bytes > MOST_HEAD_BYTES and not exchange.ended:
            self._broken = self._broken or _TOO_LONG
        if self._broken:
            self._fail(exchange, self._broken)
        elif exchange.ended:
            self._finish(exchange)
        else:
            if exchange.unread > MOST_UNREAD_BYTES and self._reading and self._transport is not None:
                self._reading = False
                self._transport.pause_reading()
            if exchange.begun:
                exchange.wake()

    def eof_received(self) -> None:
        """The upstream has nothing more to say."""
        self._lose(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._lose(exc)
        self.timer.stop()
        self._parser = None  # it holds bound methods of ours
        self.home.forget(self)

    def pause_writing(self) -> None:
        """The upstream takes our request slowly."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        if self.exchange is not None:
            self.exchange.wake()

    # ── httptools' side ──────────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """Notice an answer behind the answer."""
        if self.exchange is None or self.exchange.ended:
            self._keep = False

    def on_headers_complete(self) -> None:
        """Hand the head on, unless it only announces another (1xx)."""
        exchange, parser = self.exchange, self._parser
        if exchange is None or parser is None or exchange.ended or self._broken:
            return
        status = parser.get_status_code()
        if status < 200:
            self._interim = True
            self._fields.clear()
            if status == 101:
                self._broken = "the upstream switched to another protocol, which was not asked for"
            return
        headers = {lower_name(name): value.decode("latin-1") for name, value in self._fields.items()}
        coding = headers.get("transfer-encoding", "").strip().lower()
        if coding not in ("", "chunked"):
            self._broken = "the upstream answered in a transfer-encoding that was not asked for"
            return
        try:
            exchange.begin(status, headers)
        except Unreachable as error:
            self._broken = error.message
            return
        if not exchange.wants_body:
            exchange.end()  # a HEAD: the parser waits for a body in vain, so the connection ends here too
        elif not coding and "content-length" not in headers:
            self._until_close = True
        if "keep-alive" in headers:
            self.idle_s = idle_limit_s(headers["keep-alive"])

    def on_message_complete(self) -> None:
        """Know the end of the answer, or of what only announced it."""
        if self._interim:
            self._interim = False
            return
        exchange = self.exchange
        if exchange is not None and self._parser is not None and not exchange.ended and not self._broken:
            self._keep = self._parser.should_keep_alive()
            if self._body:
                exchange.take(self._body)
                self._body.clear()
            exchange.end()

    # ── Endings ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, exchange: Exchange) -> None:
        """Part from an exchange whose answer is here to its end."""
        self.exchange = None
        keep, self._keep, self.used = self._keep and not self._writing, False, True
        if keep and not self.lost and self._transport is not None and not self._transport.is_closing():
            if not self._reading:
                self.listen()
            self.home.release(self)
        else:
            self.abort()
            self.home.free()
        exchange.wake()

    def _fail(self, exchange: Exchange, message: str, cause: Exception | None = None) -> None:
        failure = Unreachable(message)
        failure.__cause__ = cause
        if exchange.ended:  # the answer came whole, and rubbish behind it: only the connection is of no use
            self._keep = False
            self._finish(exchange)
        else:
            exchange.fail(failure)

    def _lose(self, cause: Exception | None) -> None:
        """Part from everybody: the connection has ended from the other side."""
        exchange, self.exchange = self.exchange, None
        was_lost, self.lost = self.lost, True
        if exchange is None or was_lost:
            return
        exchange.connection = None
        if exchange.begun:
            if self._until_close and cause is None:
                exchange.end()
            self.home.free()
            if not exchange.ended:
                failure = broke_off(exchange.received)
                failure.__cause__ = cause
                exchange.fail(failure)
            exchange.wake()
        elif self.used and not self._quiet_bytes and self._died_at_once():
            exchange.stale = True  # the place in the pool stays with the exchange
            exchange.wake()
        else:
            self.home.free()
            self._fail(exchange, "the upstream closed the connection before it answered", cause)

    def _died_at_once(self) -> bool:
        return self.loop.time() - self.asked_s <= STALE_WITHIN_S


_TOO_LONG = f"the head of the upstream's answer is longer than {MOST_HEAD_BYTES} bytes"


@lru_cache(1024)
def lower_name(name: bytes) -> str:
    """Return a header's name as text."""
    return name.decode("latin-1").lower()


@lru_cache(256)
def idle_limit_s(keep_alive: str) -> float:
    """Return how long to keep a connection whose upstream said `timeout=5`: a little less, and never over `IDLE_S`."""
    said = re.search(r"\btimeout\s*=\s*(\d{1,6})", keep_alive)
    return IDLE_S if said is None else max(0.0, min(IDLE_S, int(said[1]) - 1.0))
