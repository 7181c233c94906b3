"""A request and its answer, on a client's connection.

An app is asked in ASGI's words. What these have none for it says to the `Cycle` itself, an extension of ASGI: that its
answer is all here, how long it may take, what to call if the client leaves (for which plain ASGI needs a task that
waits), and whether the request is all here.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

CLIENT = "gateway.client"
"""An extension of ASGI: the request's `Cycle`."""
CONTROL = bytes({*range(0x20), 0x7F} - {ord("\t")})
"""What no header may have in it: with a line end of its own, one answer would be two."""
BODILESS = frozenset({204, 304})

line = b"%b: %b".__mod__
"""Returns a header, (name, value), as a line, without its end."""


class Client(Protocol):
    """The connection, as its cycles see it."""

    transport: Any
    flow: FlowControl
    expect_100_continue: bool
    logger: logging.Logger
    tasks: set[asyncio.Task[None]]
    server_state: ServerState

    def watch(self, in_s: float) -> None:
        """Leave the client so many seconds from now, unless something else is said until then."""
        ...

    def on_response_complete(self) -> None:
        """Go on with the next request, or be idle until it comes."""
        ...


class Cycle:
    """A request and its answer."""

    __slots__ = (
        *("_bodiless", "_chunked", "_chunks", "_client", "_departed", "_flow", "_left", "_owes_leave", "_transport"),
        *("_unsent", "_untouched", "body", "disconnected", "end_unsaid", "ended", "is_late", "keep_alive", "more_body"),
        *("receiving", "response_complete", "status", "task"),
    )

    def __init__(self, client: Client, *, bodiless: bool, chunks: bool, keep_alive: bool) -> None:
        self.keep_alive: bool = keep_alive
        """The connection goes on after the answer; whoever answers may decide otherwise, before it begins."""
        self.status = 0
        """What the client is answered; 0: nothing yet."""
        self.response_complete = False
        self.disconnected = False
        self.is_late = False
        """Its time was up: so who answers was cancelled."""
        self.body = b""
        """What came of the request's body and nobody has received yet."""
        self.more_body = True
        self.end_unsaid = False
        """The body has ended, and nobody has received that yet."""
        self.receiving: asyncio.Event | None = None
        """To be set when there is something to receive, if anybody ever waited for that."""
        self.ended: Callable[[], object] | None = None
        """To be called when whoever answers is done, however it ended."""
        self.task: asyncio.Task[None]
        self._client = client
        self._transport: Any = client.transport
        self._flow: FlowControl = client.flow
        self._owes_leave: bool = client.expect_100_continue
        self._untouched = True
        self._departed: Callable[[], object] | None = None
        self._bodiless = bodiless
        self._chunks = chunks
        """The client knows them."""
        self._chunked = False
        self._unsent = b""
        """The head, until there is a body to send with it."""
        self._left = 0.0
        """Bytes that are still to come of a body whose length was said; infinite: it ends with the connection."""

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        """Have `app` answer. What it leaves unfinished ends with the connection, so that nobody takes it for all."""
        client = self._client
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            client.logger.error("Exception in ASGI application\n", exc_info=error)
            await self._fail()
        else:
            if not (self.response_complete or self.disconnected):
                if not self.status:
                    client.logger.error("ASGI callable returned without starting response.")
                await self._fail()
        finally:
            client.tasks.discard(self.task)
            if self.ended is not None:
                self.ended()
            del self._client  # or a connection and its last request would hold each other
            self._departed = self.ended = None

    async def _fail(self) -> None:
        if self.is_late and (self.status or self._flow.write_paused):
            self._transport.abort()  # to close waits until all is taken that is on its way
        elif self.status:
            self._transport.close()
        else:
            self.keep_alive = False
            await self.answer(500, [b"content-type: text/plain; charset=utf-8"], b"Internal Server Error")

    @property
    def whole_body(self) -> bytes | None:
        """The request's body; `None`: it is not all here, or somebody has received some of it."""
        return self.body if self._untouched and not self.more_body else None

    async def receive(self) -> Any:
        """Return what the client says next, as ASGI has it."""
        self._untouched = False
        if self._owes_leave and not self.status and not self._transport.is_closing():
            self._owes_leave = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.disconnected or self.response_complete):
            self._flow.resume_reading()
            if self.body or self.end_unsaid:
                body, self.body, self.end_unsaid = self.body, b"", False
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            self.receiving = self.receiving or asyncio.Event()
            await self.receiving.wait()
            self.receiving.clear()
        return {"type": "http.disconnect"}

    def watch(self, in_s: float) -> None:
        """Cancel who answers if it is not done so many seconds from now; said again, that counts."""
        self._client.watch(in_s)

    def on_departure(self, departed: Callable[[], object]) -> None:
        """Call `departed` if the client leaves, or has left, before it is answered and all is tidied up."""
        self._departed = departed
        if self._flow.read_paused:
            self._flow.resume_reading()  # or the connection would not say that it ended
        if self.disconnected:
            departed()

    def left(self) -> None:
        """Note that the client has left."""
        self.disconnected = not self.response_complete
        if self.receiving is not None:
            self.receiving.set()
        if self._departed is not None:
            self._departed()

    async def send(self, message: Any) -> None:
        """Send a part of the answer, as ASGI has it.

        Raises:
            ValueError: a header has a control character in it.
            RuntimeError: the body is longer or shorter than the head says; the connection is closed.
        """
        if self.status:
            await self.write(message.get("body", b""), more=message.get("more_body", False))
            return
        lines: list[bytes] = []
        length: int | None = None
        for name, value in message["headers"]:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
            else:
                lines.append(line((name, value)))
        await self.begin(message["status"], lines, length)

    async def answer(self, status: int, lines: Iterable[bytes], body: bytes) -> None:
        """Send a whole answer.

        Args:
            status: its status.
            lines: its headers, without line ends and without those that say how the body is framed.
            body: its body.

        Raises:
            ValueError: a header has a control character in it.
        """
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        head = self._head(status, lines, len(body))
        self.status = status
        if not self.disconnected:
            self._transport.writelines([head] if self._bodiless else [head, body])
            self._complete()

    async def begin(self, status: int, lines: Iterable[bytes], length: int | None = None) -> None:
        """Begin an answer: the head waits for what comes first behind it.

        Args:
            status: its status.
            lines: its headers, without line ends and without those that say how the body is framed.
            length: how long the body will be in bytes; `None`: nobody knows.

        Raises:
            ValueError: a header has a control character in it.
        """
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        self._unsent = self._head(status, lines, length)
        self.status = status

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of the body.

        Raises:
            RuntimeError: the body is longer or shorter than the head says; the connection is closed.
        """
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        pieces = [self._unsent] if self._unsent else []
        self._unsent = b""
        if self._chunked:
            if data:
                pieces.append(b"%x\r\n%b\r\n" % (len(data), data))
            if not more:
                pieces.append(b"0\r\n\r\n")
        elif not self._bodiless:
            self._left -= len(data)
            if data:
                pieces.append(data)
        if self.response_complete or self._left < 0 or (0 < self._left < inf and not more):
            self._transport.close()
            raise RuntimeError("an answer's body is not as long as its head says")
        if pieces:
            self._transport.writelines(pieces)
        if not more:
            self._complete()

    def _head(self, status: int, lines: Iterable[bytes], length: int | None) -> bytes:
        """Return an answer's head, which says how the body is framed, and remember that.

        Raises:
            ValueError: a header has a control character in it, a line's end perhaps.
        """
        said = [*map(line, self._client.server_state.default_headers), *lines]
        self._chunked = False
        bodiless = self._bodiless or status in BODILESS
        if length is not None:
            said.append(b"content-length: %d" % length)
        elif not bodiless:
            self._chunked = self._chunks
        if self._chunked:
            said.append(b"transfer-encoding: chunked")
        if not self.keep_alive:
            said.append(b"connection: close")
        head = STATUS_LINE[status] + b"\r\n".join(said)
        if len(head.translate(None, CONTROL)) != len(head) - 2 * len(said):
            raise ValueError("a header of an answer has a control character in it")
        self._left = 0.0 if bodiless or self._chunked else inf if length is None else length
        return head + b"\r\n\r\n"

    def _complete(self) -> None:
        self.response_complete = True
        if self.receiving is not None:
            self.receiving.set()
        if not self.keep_alive:
            self._transport.close()
        self._client.on_response_complete()
