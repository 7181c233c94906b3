"""HTTP/2 to upstreams that are configured for it: `http: http2`. Many calls share a connection.

The protocol is the library h2's; here is who may use which connection. Over TLS it is agreed by ALPN; an http://
address is spoken to in HTTP/2 from the first byte on (RFC 9113 §3.3). h2 is pure Python, and what a call costs by it
was not measured, so our own HTTP/1.1 is what calls use when nothing else was said.
"""

import asyncio
import copy
import ssl
from collections import deque

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine.dialing import dial
from gateway.engine.failures import CLOSED, no_connection, no_place, timed_out
from gateway.engine.http1 import LIVES_S, MOST_CONNECTIONS, all_closed
from gateway.engine.http1_exchange import Exchange
from gateway.engine.http2_connection import Connection
from gateway.engine.outgoing import Target, default_tls, fields_of, target_of
from gateway.engine.proxies import Proxy, ProxyFor, directly
from gateway.engine.transport import Deadline
from gateway.providers.base import Request

MOST_TRIES = 3
"""How often a request is sent that an upstream says it has not looked at, or a connection opened for it."""
NO_MORE = "the upstream takes no more requests"


class Http2Transport:
    """Sends requests over HTTP/2. Satisfies `Transport`.

    Args:
        tls: what certificates are checked against; certifi's roots when left out. HTTP/2 is asked for by ALPN.
        most_connections: to one origin. Another one is opened when those there are carry as many calls as the upstream
            lets them.
        proxy_for: says which proxy leads to a target, if any.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        most_connections: int = MOST_CONNECTIONS,
        proxy_for: ProxyFor = directly,
    ) -> None:
        self._tls = tls or default_tls()
        self._tls.set_alpn_protocols(["h2"])
        self._most = most_connections
        self._proxy_for = proxy_for
        self._origins: dict[tuple[bool, str, int], Origin] = {}
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
        fields = fields_of(target, request)
        origin = self._origin(target)
        exchange = Exchange(asyncio.get_running_loop(), deadline, request.method != "HEAD")
        try:
            for _ in range(MOST_TRIES):
                connection = await origin.connection(connect_s, deadline)
                if await connection.ask(exchange, fields, request.upload or request.body):
                    return exchange
                exchange.stale = False
                if request.upload is not None and request.upload.spent:
                    raise Unreachable("the upstream did not take the request, and this body cannot be sent twice")
            raise Unreachable(NO_MORE)
        except BaseException:
            exchange.close()
            raise

    async def close(self) -> None:
        """Close every connection; exchanges under way fail."""
        self.closed = True
        for origin in self._origins.values():
            origin.abort()
        await all_closed(lambda: any(origin.is_open for origin in self._origins.values()), self._one_less)

    def forgot(self) -> None:
        """Know that a connection is closed, or is none."""
        self._one_less.set()

    def _origin(self, target: Target) -> "Origin":
        key = (target.tls, target.host, target.port)
        origin = self._origins.get(key)
        if origin is None:
            tls = self._tls if target.tls else None
            origin = self._origins[key] = Origin(self, target, tls, self._most, self._proxy_for(target))
        return origin


class Origin:
    """The connections to one scheme, host and port, and the line of those for whom none has room."""

    def __init__(
        self, pool: Http2Transport, target: Target, tls: ssl.SSLContext | None, most: int, proxy: Proxy | None
    ) -> None:
        self.connections: list[Connection] = []
        """All that are open; those that take no more calls too, until the last of theirs is over."""
        self._pool = pool
        self._target = target
        self._tls = tls
        self._most = most
        self._proxy = proxy
        self._opening: asyncio.Task[Unreachable | TimedOut | None] | None = None
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def is_open(self) -> bool:
        """There is a connection, or there will be."""
        return bool(self.connections) or self._opening is not None

    async def connection(self, connect_s: float, deadline: Deadline) -> Connection:
        """Return a connection with room for one more call.

        One connection is opened at a time, whoever waits for it: a crowd that comes at once shares the first.

        Raises:
            Unreachable: nobody is there, nobody that we can trust, or nobody who speaks HTTP/2.
            TimedOut: it took too long, or there was no room until the deadline.
        """
        loop = asyncio.get_running_loop()
        is_first, opened = not self._line, 0
        while True:
            if self._pool.closed:
                raise Unreachable(CLOSED)
            connection = self._with_room(loop.time()) if is_first else None
            if connection is not None:
                return connection
            if self._opening is None and is_first and self._taking < self._most:
                if opened == MOST_TRIES:  # it goes away as soon as it is there, or has no room from the beginning
                    self.roomy()
                    raise Unreachable(NO_MORE)
                opened += 1
                self._opening = loop.create_task(self._open(connect_s))
            if self._opening is not None:
                try:
                    await self._opened(self._opening, connect_s, deadline)
                except (Unreachable, TimedOut):
                    self.roomy()  # the next in line finds out for itself
                    raise
            else:
                await self._room(deadline)
            is_first = True

    @property
    def _taking(self) -> int:
        """Those that take calls. One that was retired is no reason to wait for its last call's end."""
        return sum(not connection.retired for connection in self.connections)

    def roomy(self, calls: int = 1) -> None:
        """Know that there is room for so many more calls."""
        while calls > 0 and self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_result(None)
                calls -= 1

    def forget(self, connection: Connection) -> None:
        """Know that a connection is closed: another may be opened."""
        if connection in self.connections:
            self.connections.remove(connection)
        self._pool.forgot()
        self.roomy()

    def abort(self) -> None:
        """Close every connection, and send everybody away who waits for one."""
        if self._opening is not None:
            self._opening.cancel()
        for connection in list(self.connections):
            connection.fail_all(CLOSED)
            connection.abort()
        self.roomy(len(self._line))

    def _with_room(self, now_s: float) -> Connection | None:
        for connection in self.connections:
            if now_s >= connection.old_at_s:
                connection.retire()
            elif connection.room > 0:
                return connection
        return None

    async def _room(self, deadline: Deadline) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(waiter)
        try:
            async with asyncio.timeout_at(deadline.at_s):
                await waiter
        except BaseException as error:
            if waiter in self._line:
                self._line.remove(waiter)
            elif not waiter.cancelled():
                self.roomy()  # it was let in just when it left
            if isinstance(error, TimeoutError):
                raise no_place(self._most, deadline.clock) from error
            raise

    async def _opened(
        self, opening: "asyncio.Task[Unreachable | TimedOut | None]", connect_s: float, deadline: Deadline
    ) -> None:
        now_s = asyncio.get_running_loop().time()
        left_s, clock = min((connect_s, "connect"), (deadline.at_s - now_s, deadline.clock))
        await asyncio.wait({opening}, timeout=max(0.0, left_s))
        if not opening.done():
            raise timed_out(clock)
        if opening.cancelled():
            raise Unreachable(CLOSED)
        failure = opening.result()
        if failure is not None:
            raise copy.copy(failure) from failure  # each caller's own: what is to follow is written on it

    async def _open(self, connect_s: float) -> Unreachable | TimedOut | None:
        """Open a connection, for whoever waits for it, and return what went wrong."""
        loop = asyncio.get_running_loop()
        connection = Connection(self, loop)
        scope = asyncio.timeout(connect_s)
        try:
            async with scope:
                await dial(connection, self._target, self._tls, self._proxy, forwards=False)
                await connection.ready.wait()
        except (OSError, Unreachable) as error:
            connection.abort()
            if isinstance(error, TimeoutError) and scope.expired():
                return timed_out("connect")
            return error if isinstance(error, Unreachable) else no_connection(error)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._opening = None
            self._pool.forgot()
        if connection.problem is not None:
            return connection.problem
        connection.old_at_s = loop.time() + LIVES_S
        self.connections.append(connection)
        self.roomy(connection.room)
        return None
