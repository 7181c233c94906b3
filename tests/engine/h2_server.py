"""An upstream that speaks HTTP/2, and does what a test's handler says: `H2Server(handler)`.

A handler is called for each request as soon as its head is here, with what is asked and the means to answer.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

Handler = Callable[["Asked"], Awaitable[None]]


async def hello(asked: "Asked") -> None:
    """Answer when the whole request is here."""
    await asked.whole.wait()
    await asked.answer(b"Hello")


class Asked:
    """A request, and the means to answer it."""

    def __init__(self, connection: "_Connection", id: int, headers: dict[str, str]) -> None:
        self.connection = connection
        self.id = id
        self.headers = headers
        self.body = b""
        self.whole = asyncio.Event()
        """All of it is here."""
        self.reset: int | None = None
        """The code with which the client let go of it."""
        self.sent = 0
        """Bytes of the answer's body that were written."""

    async def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Give a whole answer."""
        self.head(status, **headers)
        await self.data(body, ends=True)

    def head(self, status: int = 200, *, ends: bool = False, **headers: str) -> None:
        """Say the answer's head, or one that only announces it."""
        lines = [(":status", f"{status}"), *((name.replace("_", "-"), value) for name, value in headers.items())]
        self.connection.h2.send_headers(self.id, lines, end_stream=ends)
        self.connection.flush()

    async def data(self, body: bytes, *, ends: bool = False) -> None:
        """Say a piece of the answer, no faster than the client takes it."""
        h2 = self.connection.h2
        while body:
            size = min(h2.local_flow_control_window(self.id), h2.max_outbound_frame_size)
            if size <= 0:
                await self.connection.changed()
                continue
            h2.send_data(self.id, body[:size])
            self.sent += len(body[:size])
            body = body[size:]
            self.connection.flush()
            self.connection.server.changed()
            await asyncio.sleep(0)
        if ends:
            h2.end_stream(self.id)
            self.connection.flush()

    def trailers(self, **headers: str) -> None:
        """End the answer with these."""
        self.connection.h2.send_headers(self.id, list(headers.items()), end_stream=True)
        self.connection.flush()

    def refuse(self, code: ErrorCodes = ErrorCodes.REFUSED_STREAM) -> None:
        """Reset it."""
        self.connection.h2.reset_stream(self.id, code)
        self.connection.flush()

    async def forever(self) -> None:
        """Say no more."""
        await asyncio.get_running_loop().create_future()


class H2Server:
    """The upstream. `url` is where it is."""

    def __init__(
        self,
        handler: Handler = hello,
        *,
        tls: ssl.SSLContext | None = None,
        max_streams: int = 100,
        window: int = 65_535,
        takes: bool = True,
    ) -> None:
        self.handler = handler
        self.max_streams = max_streams
        self.window = window
        self.takes = takes
        """Whether what clients send is acknowledged."""
        self.goes_away = False
        """Whether a connection's first words are that it takes no more requests."""
        self.asked: list[Asked] = []
        self.connections: list[_Connection] = []
        """All that were ever made."""
        self._tls = tls
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1/x?a=b"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self.connections:
            connection.close()
        await self.until(lambda: not self.open)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(connection.is_open for connection in self.connections)

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait until `predicate()` holds.

        Raises:
            TimeoutError: it does not.
        """
        async with asyncio.timeout(30):
            while not predicate():
                await self.change()

    async def change(self) -> None:
        """Wait until something happens."""
        self._changed.clear()
        await self._changed.wait()

    def changed(self) -> None:
        """Have everybody look again."""
        self._changed.set()


class _Connection(asyncio.Protocol):
    def __init__(self, server: H2Server) -> None:
        self.server = server
        self.is_open = True
        self.left: int | None = None
        """The code with which the client left."""
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self._asked: dict[int, Asked] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server.connections.append(self)
        self.h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = self.server.max_streams
        self.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = self.server.window
        self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        self.flush()
        if self.server.goes_away:
            self.go_away(0)

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case events.RequestReceived():
                    headers = {str(name): str(value) for name, value in event.headers}
                    asked = self._asked[event.stream_id] = Asked(self, event.stream_id, headers)
                    self.server.asked.append(asked)
                    task = asyncio.get_running_loop().create_task(self._serve(asked))
                    self._tasks[event.stream_id] = task
                case events.DataReceived():
                    self._asked[event.stream_id].body += event.data
                    if self.server.takes:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case events.StreamEnded():
                    self._asked[event.stream_id].whole.set()
                case events.StreamReset():
                    self._asked[event.stream_id].reset = int(event.error_code)
                    self._tasks[event.stream_id].cancel()
                case events.ConnectionTerminated():
                    self.left = int(event.error_code)
                case _:
                    pass
        self.flush()
        self.server.changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        for task in self._tasks.values():
            task.cancel()
        self.server.changed()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    async def changed(self) -> None:
        await self.server.change()

    def go_away(self, last: int, code: int = 0) -> None:
        """Say that requests behind `last` were not looked at, and go on with the others. h2 would not."""
        frame = GoAwayFrame(0, last_stream_id=last, error_code=code)
        self.transport.write(frame.serialize())

    def close(self) -> None:
        """Hang up."""
        self.transport.abort()

    async def _serve(self, asked: Asked) -> None:
        await self.server.handler(asked)
        self.server.changed()
