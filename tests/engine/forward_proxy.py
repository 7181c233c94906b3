"""A little HTTP proxy that leads on where it is told to: `ForwardProxy({("upstream.example", 443): port})`."""

import asyncio
import contextlib
import ssl
from typing import Self

from gateway.engine.proxies import Proxy


class ForwardProxy:
    """It takes `CONNECT` alone; requests as they are go to a `ScriptedUpstream` in its place.

    Args:
        leads: to which loopback port it leads for a host and port; elsewhere it refuses to (403).
        credentials: what `proxy-authorization` has to say; empty: nothing.
        answer: what it says instead of anything else, as soon as it was asked.
    """

    def __init__(
        self,
        leads: dict[tuple[str, int], int],
        *,
        credentials: str = "",
        answer: bytes | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.asked: list[str] = []
        """Request lines, in the order of their arrival."""
        self.open = 0
        """Connections at the moment."""
        self.changed = asyncio.Event()
        self._leads = leads
        self._credentials = credentials
        self._answer = answer
        self._tls = tls
        self._running = set[asyncio.Task[None]]()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def proxy(self, credentials: str = "") -> Proxy:
        """What leads through it."""
        scheme, _, place = self.url.partition("://")
        return Proxy.parse(f"{scheme}://{credentials}{'@' if credentials else ''}{place}")

    async def until_all_left(self) -> None:
        """Wait until nobody is connected."""
        async with asyncio.timeout(30):
            while self.open:
                self.changed.clear()
                await self.changed.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self.open += 1
        with (
            contextlib.closing(writer),
            contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError),
        ):
            try:
                await self._lead(reader, writer)
            finally:
                self.open -= 1
                self.changed.set()
                self._running.discard(task)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.asked.append(line)
        headers = dict(line.split(": ", 1) for line in lines if line)
        place = line.split(" ")[1].rpartition(":")
        port = self._leads.get((place[0], int(place[2])))
        if self._answer is not None:
            writer.write(self._answer)
            await reader.read()
        elif headers.get("proxy-authorization", "").removeprefix("Basic ") != self._credentials:
            writer.write(b"HTTP/1.1 407 Who are you\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n")
        elif port is None:
            writer.write(b"HTTP/1.1 403 Not there\r\ncontent-length: 0\r\n\r\n")
        else:
            from_upstream, to_upstream = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connected\r\nvia: 1.1 little\r\n\r\n")
            with contextlib.closing(to_upstream):
                ways = [
                    asyncio.ensure_future(_pipe(reader, to_upstream)),
                    asyncio.ensure_future(_pipe(from_upstream, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
