"""One connection to Redis: redis-py opens it (the URL's options, TLS, the password), then hiredis packs and reads.

redis-py's own way, a pipeline out of a pool, took 110 µs of CPU for the four commands of a call where 64 are under way
at a time, and 430 where one is; this takes 45 and 140 (measured with and without Redis, the difference).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

pack = cast(Callable[[tuple[Any, ...]], bytes], hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]
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
                if not isinstance(reply, hiredis.PushNotification):
                    self._take(reply)
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

    def _take(self, reply: Any) -> None:
        if not self._expected:
            return  # they are not waited for any more
        self._replies.append(reply)
        count, replies = self._expected[0]
        if len(self._replies) == count:
            self._expected.popleft()
            taken, self._replies = self._replies, []
            if not replies.done():
                replies.set_result(taken)


def _refusal(said: str) -> ResponseError:
    return NoScriptError(said) if said.startswith("NOSCRIPT") else ResponseError(said)
