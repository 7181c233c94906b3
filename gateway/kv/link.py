"""One connection to Redis: redis-py opens it (the URL's options, TLS, the password), then hiredis packs and reads.

redis-py's own way, a pipeline out of a pool, took 110 µs of CPU for the four commands of a call where 64 are under way
at a time, and 430 where one is. This took 45 and 140. With two round trips in place of four it is 73 where one call is
under way, and nothing where 64 are, for Redis does what this process would (measured with and without, the difference).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

pack = cast(Callable[[tuple[Any, ...]], bytes], hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]
CONNECT_S = 1.0
"""How long opening a connection may take, TLS and password included; calls do not wait for that."""
_NOT_YET = object()


class Link(asyncio.Protocol):
    """Commands go out, and replies come in their order."""

    def __init__(self, connection: AbstractConnection, transport: asyncio.Transport) -> None:
        self.is_open = True
        self._connection = connection
        self._transport = transport
        self._opener = transport.get_protocol()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET, replyError=_refusal)
        self._expected = deque[tuple[int, asyncio.Future[list[Any]]]]()
        self._replies: list[Any] = []

    @classmethod
    async def open(cls, redis: "Redis") -> Self:
        """Connect.

        Raises:
            RedisError, OSError: Redis cannot be reached, or does not let us in.
        """
        connection: AbstractConnection = redis.connection_pool.make_connection()
        try:
            await connection.connect()
            writer = cast(asyncio.StreamWriter, connection._writer)  # pyright: ignore[reportPrivateUsage]
            link = cls(connection, cast(asyncio.Transport, writer.transport))
            writer.transport.set_protocol(link)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return link

    def send(self, commands: Sequence[bytes]) -> "asyncio.Future[list[Any]]":
        """Return the replies to `commands` when all of them have come; one that says no is an exception among them.

        The future fails with `OSError` or `RedisError` if the connection breaks first.
        """
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._expected.append((len(commands), replies))
        self._transport.write(b"".join(commands))
        return replies

    def abort(self) -> None:
        """Break the connection: what is still to come on it is not waited for."""
        self.is_open = False
        self._transport.abort()
        while self._expected:
            self._expected.popleft()[1].cancel()

    async def close(self) -> None:
        """Close the connection, if it is open."""
        self.abort()
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Read replies."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                if isinstance(reply, hiredis.PushNotification) or not self._expected:
                    continue  # it is nobody's, or is not waited for any more
                taken = self._replies
                taken.append(reply)
                count, replies = self._expected[0]
                if len(taken) == count:
                    self._expected.popleft()
                    self._replies = []
                    if not replies.done():
                        replies.set_result(taken)
        except hiredis.ProtocolError as error:
            self.connection_lost(ConnectionError(f"this is not Redis's protocol: {error}"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever still waits."""
        self.is_open = False
        while self._expected:
            replies = self._expected.popleft()[1]
            if not replies.done():
                replies.set_exception(exc or ConnectionError("Redis closed the connection"))
        self._opener.connection_lost(exc)


def client_of(url: str) -> "Redis":
    """Return what opens connections to the Redis at `url`.

    Raises:
        ValueError: the URL is none.
    """
    try:
        # No timeouts and no retries of its own: a line has them, and two sets of them would add up.
        client: Redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=CONNECT_S,
        )
        client.connection_pool.make_connection()  # looks at the URL's options
    except (ValueError, TypeError):
        # What is wrong is not quoted: a password with a `/` in it is taken for a port.
        raise ValueError(
            "this is no URL of a Redis: expected redis://host:6379/0, redis://user:password@host:6379/0, rediss://… "
            "for TLS, or unix:///path; characters such as / and # in a password are written %2F and %23"
        ) from None
    return client


def _refusal(said: str) -> ResponseError:
    return NoScriptError(said) if said.startswith("NOSCRIPT") else ResponseError(said)
