"""Stands between a gateway and its Redis: `proxy.delay_s = 0.1` makes Redis slow, `proxy.withhold(b"EVALSHA")` deaf."""

import asyncio
import contextlib
from typing import Self

CHUNK = 65_536


class Proxy:
    """A TCP proxy on a loopback port. What clients ask goes through at once; what they are told may have to wait."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._withheld: bytes | None = None
        self._connections = set[asyncio.Task[None]]()
        self.delay_s = 0.0
        """How much later each piece of a reply arrives."""
        self.asked: list[bytes] = []
        """What clients sent, in the pieces in which it came: a round trip's commands are one."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def withhold(self, word: bytes | None) -> None:
        """Let no reply through any more to a connection that says `word`; `b""`: to none; `None`: let all through."""
        self._withheld = word

    def times_asked(self, word: bytes) -> int:
        """Return in how many round trips clients said `word`."""
        return sum(word in piece for piece in self.asked)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with contextlib.closing(to_client), contextlib.suppress(OSError, asyncio.CancelledError):
            server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
            with contextlib.closing(to_server):
                said: list[bytes] = []
                ways = (self._in(client, to_server, said), self._out(server, to_client, said))
                running = [asyncio.ensure_future(way) for way in ways]
                try:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in running:
                        way.cancel()
                    await asyncio.gather(*running, return_exceptions=True)
        self._connections.discard(task)

    async def _in(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter, said: list[bytes]) -> None:
        while piece := await client.read(CHUNK):
            said.append(piece)
            self.asked.append(piece)
            to_server.write(piece)

    async def _out(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter, said: list[bytes]) -> None:
        while piece := await server.read(CHUNK):
            await asyncio.sleep(self.delay_s)
            while self._withheld is not None and any(self._withheld in words for words in said):
                await asyncio.sleep(0.005)
            to_client.write(piece)
