"""Our own HTTP/1.1 client: a pool of connections on asyncio's protocols and httptools' parser.

Why not a library: at 64 connections a call costs 70 µs through such a pool, 250 through aiohttp and over 2,000
through httpx 0.28, whose pool also dies for good under cancellations, which is what every client that leaves is.
Works on asyncio's event loop and on uvloop.

A connection carries calls for `LIVES_S` and is then replaced, so that an upstream whose name has moved to another
address is followed there; new connections ask for its addresses anew (`dialing`).
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine.dialing import dial, refused
from gateway.engine.failures import CLOSED, no_connection, no_place, timed_out
from gateway.engine.http1_connection import Connection
from gateway.engine.http1_exchange import Exchange
from gateway.engine.outgoing import Target, default_tls, head_of, target_of
from gateway.engine.proxies import Proxy, ProxyFor, directly
from gateway.engine.transport import Deadline
from gateway.providers.base import Request

MOST_CONNECTIONS = 1_000
"""Connections to one origin, idle ones included. Who comes later waits in line."""
LIVES_S = 300.0
"""How long a connection is used again; what it carries then is still carried to its end."""
SWEEP_S = 2.0
"""How often idle connections are looked through."""
CLOSE_S = 1.0
"""How long closing waits for the event loop to let go of the sockets."""


async def all_closed(is_open: Callable[[], bool], one_less: asyncio.Event) -> None:
    """Wait until none `is_open` any more, but no longer than `CLOSE_S`; `one_less` tells of each that closes."""
    try:
        async with asyncio.timeout(CLOSE_S):
            while is_open():
                one_less.clear()
                await one_less.wait()
    except TimeoutError:
        logging.getLogger("gateway").warning("some connections to upstreams could not be closed in time")


class NativeTransport:
    """Sends requests over HTTP/1.1. Satisfies `Transport`.

    Args:
        tls: what certificates are checked against; certifi's roots when left out. HTTP/1.1 is asked for by ALPN.
        most_connections: to one origin.
        proxy_for: says which proxy leads to a target, if any.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        most_connections: int = MOST_CONNECTIONS,
        proxy_for: ProxyFor = directly,
    ) -> None:
        self._tls = tls
        self._proxy_for = proxy_for
        self._tls_ready = False
        self._most = most_connections
        self._origins: dict[tuple[bool, str, int], Origin] = {}
        self.sweeper: asyncio.TimerHandle | None = None
        """Sees to it that idle connections are closed in time, while there are any."""
        self._one_less = asyncio.Event()
        self.closed = False

    async def send(self, request: Request, *, connect_s: float, deadline: Deadline) -> Exchange:
        """Send `request` and return the answer's head.

        Raises:
            Unreachable: no connection, or it broke before the head came.
            TimedOut: the connection took longer than `connect_s`, or `deadline` passed.
            ValueError: the request is none that can be sent: a bug of the caller's.
        """
        target = target_of(request.url)
        head, body = head_of(target, request), request.upload or request.body
        if self.closed:
            raise Unreachable(CLOSED)
        loop = asyncio.get_running_loop()
        origin = self._origins.get((target.tls, target.host, target.port)) or self._origin(target)
        if origin.forwarder is not None:
            head = origin.forwarder.forwarded(target, head)
        exchange = Exchange(loop, deadline, request.method != "HEAD")
        try:
            connection = origin.idle_one(loop.time()) or await origin.turn(exchange)
            while True:
                if connection is None:
                    connection = await origin.connect(connect_s, deadline)
                if (sending := connection.ask(exchange, head, body)) is not None:
                    await sending
                while not exchange.begun:
                    if exchange.failure is not None:
                        raise exchange.failure
                    if exchange.stale:
                        break
                    await exchange.wait()
                if exchange.begun:
                    break
                if request.upload is not None and request.upload.spent:
                    raise Unreachable("the upstream closed the connection, and this body cannot be sent twice")
                connection, exchange.stale = None, False
        except BaseException:
            if exchange.stale:
                origin.free()  # the place of a connection that was closed, in which another was to be asked
            exchange.close()
            raise
        return exchange if origin.forwarder is None else origin.answered(exchange)

    async def close(self) -> None:
        """Close every connection; exchanges under way fail."""
        self.closed = True
        if self.sweeper is not None:
            self.sweeper.cancel()
        for origin in self._origins.values():
            origin.abort()
        await all_closed(lambda: any(origin.connections for origin in self._origins.values()), self._one_less)

    def _origin(self, target: Target) -> "Origin":
        context = self._context() if target.tls else None
        origin = Origin(self, target, context, self._most, self._proxy_for(target))
        self._origins[target.tls, target.host, target.port] = origin
        return origin

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = default_tls()
        if not self._tls_ready:
            self._tls.set_alpn_protocols(["http/1.1"])
            self._tls_ready = True
        return self._tls

    def forgot(self) -> None:
        """Know that a connection is closed."""
        self._one_less.set()

    def sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that idle connections are closed in time."""
        if self.sweeper is None and not self.closed:
            self.sweeper = loop.call_later(SWEEP_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sweeper = None
        left = [origin.sweep(loop.time()) for origin in self._origins.values()]
        if any(left):
            self.sweep_later(loop)


class Origin:
    """The connections to one scheme, host and port, and the line of those who wait for one.

    A place is the right to have one connection. `_places` counts those given out; each belongs to an idle connection,
    or to an exchange, and is handed on or given back exactly once.
    """

    def __init__(
        self, pool: NativeTransport, target: Target, tls: ssl.SSLContext | None, most: int, proxy: Proxy | None
    ) -> None:
        self.connections: set[Connection] = set()
        """All that are open."""
        self.forwarder = proxy if tls is None else None
        """A proxy that takes requests themselves: what is not encrypted is not tunnelled."""
        self._proxy = proxy
        self._pool = pool
        self._target = target
        self._tls = tls
        self._most = most
        self._places = 0
        self._idle: dict[Connection, None] = {}
        """Those that carry nothing, the last used at the end. A dict: any of a thousand is out at once."""
        self._line: deque[_Turn] = deque()

    def idle_one(self, now_s: float) -> Connection | None:
        """Return the connection that was used last, so that those not needed grow old and are closed."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if not connection.lost and now_s - connection.idle_since_s <= connection.idle_s:
                return connection
            connection.abort()
            self.free()
        return None

    async def turn(self, exchange: Exchange) -> Connection | None:
        """Return a place: an idle connection, or `None` for the right to open one. First come, first served.

        Raises:
            TimedOut: the exchange's deadline passed in line.
        """
        if self._places < self._most:
            self._places += 1
            return None
        turn = _Turn(exchange)
        self._line.append(turn)
        try:
            while True:
                if exchange.failure is not None:
                    raise exchange.failure
                if turn.come:
                    return turn.connection
                await exchange.wait()
        except BaseException as error:
            if not turn.come:
                self._line.remove(turn)
                if isinstance(error, TimedOut):
                    raise no_place(self._most, error.clock) from error
            elif turn.connection is None:
                self.free()
            else:
                self.release(turn.connection)
            raise

    async def connect(self, connect_s: float, deadline: Deadline) -> Connection:
        """Open a connection in a place that the caller holds; if it fails, the place is given back.

        Raises:
            Unreachable: nobody is there, or nobody that we can trust.
            TimedOut: it took too long.
        """
        loop = asyncio.get_running_loop()
        connection = Connection(self, loop)
        at_s, clock = min((loop.time() + connect_s, "connect"), (deadline.at_s, deadline.clock))
        scope = asyncio.timeout_at(at_s)
        try:
            async with scope:
                await dial(connection, self._target, self._tls, self._proxy, forwards=self.forwarder is not None)
        except BaseException as error:
            connection.abort()
            self.free()
            if isinstance(error, TimeoutError) and scope.expired():
                raise timed_out(clock) from error
            if isinstance(error, OSError):
                raise no_connection(error) from error
            raise
        if self._pool.closed:
            connection.abort()
            self.free()
            raise Unreachable(CLOSED)
        if not connection.lost:
            self.connections.add(connection)
        connection.old_at_s = loop.time() + LIVES_S
        return connection

    def answered(self, exchange: Exchange) -> Exchange:
        """Return an exchange whose head is here, unless the head is a proxy's own.

        Raises:
            Unreachable: the proxy does not let us through.
        """
        if self.forwarder is not None and exchange.status == 407:
            exchange.close()
            raise refused(407)
        return exchange

    def sweep(self, now_s: float) -> bool:
        """Close connections that were idle for too long, and tell whether others are left."""
        for connection in list(self._idle):
            if now_s - connection.idle_since_s > connection.idle_s:
                del self._idle[connection]
                connection.abort()
                self.free()
        return bool(self._idle)

    def abort(self) -> None:
        """Close every connection, and send everybody in line away."""
        for turn in list(self._line):
            turn.exchange.fail(Unreachable(CLOSED))
        for connection in list(self.connections):
            if connection.exchange is not None:
                connection.exchange.fail(Unreachable(CLOSED))
            connection.abort()

    # ── The connections' side ────────────────────────────────────────────────────────────────────────────────────

    def release(self, connection: Connection) -> None:
        """Take back a connection: for the first in line, or to keep; unless it has grown old."""
        now_s = connection.loop.time()
        if connection.lost or now_s >= connection.old_at_s:
            connection.abort()
            self.free()
        elif self._line:
            self._line.popleft().give(connection)
        else:
            connection.idle_since_s = now_s
            self._idle[connection] = None
            if self._pool.sweeper is None:
                self._pool.sweep_later(connection.loop)

    def free(self) -> None:
        """Take back a place without a connection: for the first in line, if there is one."""
        if self._line:
            self._line.popleft().give(None)
        else:
            self._places -= 1

    def forget(self, connection: Connection) -> None:
        """Know that a connection is closed; an idle one's place is free."""
        self.connections.discard(connection)
        self._pool.forgot()
        if connection in self._idle:
            del self._idle[connection]
            self.free()


class _Turn:
    """Somebody in line."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.come = False
        self.connection: Connection | None = None

    def give(self, connection: Connection | None) -> None:
        self.come, self.connection = True, connection
        self.exchange.wake()
