"""An upstream that does as it is told: `upstream.will(Busy(), Busy(), "Hello")`.

A real HTTP/1.1 server on a real socket, so that what is tested is what will run. Each step answers one request:

    "Hello"                          an answer with this text, streamed or whole, in the dialect of the path
    Says("Hi", cached_tokens=4)      the same, with more to say about it
    Tool("weather", {"city": "Oslo"})    a tool call
    Busy(retry_after=2)              429
    Fails(500)                       any status, with any body and headers; `after_s`: not at once
    Html()                           a page with a 200, as broken proxies send it
    Silent()                         nothing at all, until the client leaves
    Mumbles(b"…", b"…")              the first bytes and then the others for ever: signs of life, but never a head
    Slow("Hello", first_s=0.1, between_s=0.01)
    Dribbles("one two", between_s=0.1)    the same for whole answers too: their body comes word by word
    Stalls("one two", after_events=2)    an answer that falls silent, until the client leaves
    Held(go, after_events=2)         one that goes on when the test says so, by `go.set()`
    Floods(megabytes=50)             a stream that is long, as fast as it is taken
    Pings("one two", after_events=2)    the same, but for signs of life: comments or, in a whole answer, blank lines
    Cut("one two", after_events=2)   a stream that is closed before its end; `resets`: by a TCP reset
    Events(b"data: …", b"…")         a stream of these very events, one by one
    InBand("Hello", "overloaded")    a stream that says its text and then that it failed
    Resets(after=0)                  a TCP reset after so many bytes of the answer, its head included
    Raw(b"...")                      any bytes, and then the connection is closed (or kept)
    lambda asked: "Hello"            a step that depends on what was asked

`after_events` counts every event: the first one of an OpenAI stream is the role, and behind the words come the finish,
the usage if it was asked for, and `[DONE]`. The body of a whole answer is cut at its words: what stands before them is
its first event, what stands behind them its last. An empty script answers "Hello".

Many calls at once are told apart by their models: `upstream.always("mute", Silent())`.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

from tests.dialects import Asked, Says, events, failing, pieces, whole
from tests.steps import (
    Busy,
    Cut,
    Dribbles,
    Events,
    Fails,
    Floods,
    Held,
    Html,
    InBand,
    Mumbles,
    Pings,
    Raw,
    Resets,
    Said,
    Silent,
    Slow,
    Stalls,
    Step,
    Tool,
)

MOST_S = 30.0
"""How long anything may take that is sure to come: a machine may have others to serve."""

__all__ = [
    "Asked",
    "Busy",
    "Cut",
    "Dribbles",
    "Events",
    "Fails",
    "Floods",
    "Gone",
    "Held",
    "Html",
    "InBand",
    "Mumbles",
    "Pings",
    "Raw",
    "Resets",
    "Says",
    "ScriptedUpstream",
    "Silent",
    "Slow",
    "Stalls",
    "Tool",
    "taking_nobody",
]


@dataclass(frozen=True)
class Gone:
    """A client that left before its answer was complete, and how much of it had been written."""

    asked: Asked
    sent: int
    """Bytes, the head included."""
    events: int


class ScriptedUpstream:
    """The upstream. `url` is its base URL (`…/v1`), `origin` the same without a path."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Asked] = []
        self.gone: list[Gone] = []
        self.accepted = 0
        """Connections so far."""
        self.connections: set[_Connection] = set()
        self.opened = 0
        """Connections open now."""
        self.script: deque[Step] = deque()
        self._always: dict[str, Step] = {}
        self.failures: list[BaseException] = []
        """Bugs of a script, or requests that are none; raised when the upstream is left."""
        self._tls = tls
        self._changed = asyncio.Event()

    @property
    def asked(self) -> int:
        """How many requests arrived."""
        return len(self.requests)

    def will(self, *steps: Step) -> None:
        """Say how the next requests are answered, after those already said."""
        self.script.extend(steps)

    def always(self, model: str, step: Step) -> None:
        """Say how every request for `model` is answered, whatever else was said."""
        self._always[model] = step

    def next_step(self, asked: Asked) -> Step:
        """Return how a request is to be answered."""
        if asked.model in self._always:
            return self._always[asked.model]
        return self.script.popleft() if self.script else "Hello"

    async def until(self, predicate: Callable[[], object], timeout: float = MOST_S) -> None:
        """Wait until `predicate()` holds.

        Raises:
            TimeoutError: it does not.
        """
        async with asyncio.timeout(timeout):
            while not predicate():
                self._changed.clear()
                await self._changed.wait()

    def hang_up_idle(self) -> None:
        """Close every connection that has answered and owes no answer, as servers do with idle ones."""
        for connection in list(self.connections):
            if connection.answered and connection.asked is None:
                connection.transport.close()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.connection, "127.0.0.1", 0, ssl=self._tls, backlog=4096)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.origin = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/v1"
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await self.until(lambda: not self.connections)
        if self.failures and failure[0] is None:
            raise self.failures[0]

    def connection(self) -> asyncio.Protocol:
        """Return what serves one more connection, for a test that listens elsewhere too."""
        return _Connection(self)

    def changed(self) -> None:
        """Have `until` look again."""
        self._changed.set()


@contextlib.contextmanager
def taking_nobody() -> Iterator[str]:
    """Listen, but take no connection, and yield the base URL: a kernel whose line is full lets the others knock."""
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


class _Connection(asyncio.Protocol):
    """One client's connection: reads a request, plays a step, and so on."""

    transport: asyncio.Transport

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        self.asked: Asked | None = None
        """The request whose answer is not complete."""
        self.answered = 0
        self.sent = 0
        self.events = 0
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one too, though not by inheritance
        self.upstream.accepted += 1
        self.upstream.connections.add(self)
        self.upstream.opened += 1
        self.upstream.changed()
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self._task.add_done_callback(self._served)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> None:
        self.transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._task.cancel()
        if self.asked is not None:
            self.upstream.gone.append(Gone(self.asked, self.sent, self.events))
        self.upstream.connections.discard(self)
        self.upstream.changed()

    async def _serve(self) -> None:
        while not self.transport.is_closing():
            asked = await self._request()
            step = self.upstream.next_step(asked)
            self.asked, self.sent, self.events = asked, 0, 0
            self.upstream.requests.append(asked)
            self.upstream.changed()
            said = step(asked) if callable(step) else step
            await self._play(Says(said) if isinstance(said, str) else said, asked)
            self.asked = None
            self.answered += 1

    def _served(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self.upstream.failures.append(failure)
            self.transport.abort()

    async def _request(self) -> Asked:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        del self._buffer[: end + 4]
        if headers.get("transfer-encoding") == "chunked":
            body = await self._chunked()
        else:
            body = await self._taken(int(headers.get("content-length", 0)))
        path, _, query = target.partition("?")
        return Asked(method, path, query, headers, body)

    async def _chunked(self) -> bytes:
        body = b""
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                await self._more()
            size = int((await self._taken(end + 2))[:-2], 16)
            piece = await self._taken(size + 2)
            if not size:
                return body
            body += piece[:-2]

    async def _taken(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _play(self, step: Said, asked: Asked) -> None:
        match step:
            case Says():
                await self._answer(step, asked)
            case Slow():
                await asyncio.sleep(step.first_s)
                await self._answer(Says(step.text), asked, step.between_s)
            case Busy():
                headers = {} if step.retry_after is None else {"retry-after": f"{step.retry_after}"}
                await self._write(_http(step.status, _error("slow down", "rate_limit_error"), headers))
            case Fails():
                await asyncio.sleep(step.after_s)
                await self._write(_http(step.status, _body(step.body), step.headers))
            case Html():
                page = b"<html><body><h1>It works!</h1></body></html>"
                await self._write(_http(step.status, page, {"content-type": "text/html"}))
            case Silent():
                await self._forever()
            case Dribbles():
                await self._in_pieces(Says(step.text), asked, step.between_s)
            case Mumbles():
                await self._write(step.first)
                await self._again(step.again, step.every_s)
            case Stalls():
                await self._begin(Says(step.text), asked, step.after_events, step.between_s)
                await self._forever()
            case Held():
                await self._hold(step, asked)
            case Floods():
                await self._flood(step.megabytes, asked)
            case Pings():
                await self._begin(Says(step.text), asked, step.after_events, step.between_s)
                sign = b": ping\n\n" if asked.stream else b"\n"
                await self._again(_chunk(sign if step.every_s else sign * FLOOD), step.every_s)
            case Cut():
                await self._stream(events(Says(step.text), asked)[: step.after_events])
                if step.resets:
                    await self._reset(b"")
                self._leave()
            case Events():
                await self._stream(step.events, step.between_s)
                await self._write(b"0\r\n\r\n")
            case InBand():
                *said, last = failing(Says(step.text), step.message, step.kind, asked)
                await self._stream(said)
                await self._event(last, ends=True)
            case Resets():
                await self._reset(_rendered(Says(step.text), asked)[: step.after])
            case Raw():
                await self._write(step.data)
                if step.closes:
                    self._leave()
            case _:
                raise TypeError(f"no step: {step!r}")

    async def _answer(self, says: Says, asked: Asked, between_s: float = 0.0) -> None:
        if asked.stream:
            await self._in_pieces(says, asked, between_s)
        else:
            await self._write(_http(200, whole(says, asked), {}))

    async def _in_pieces(self, says: Says, asked: Asked, between_s: float) -> None:
        *said, last = pieces(says, asked)
        await self._stream(said, between_s, head=_head(asked))
        await self._event(last, ends=True)

    async def _begin(self, says: Says, asked: Asked, most: int, between_s: float) -> None:
        """Say an answer's first pieces."""
        await self._stream(pieces(says, asked)[:most], between_s, head=_head(asked))

    async def _stream(self, said: list[bytes], between_s: float = 0.0, *, head: bytes | None = None) -> None:
        await self._write(head or _STREAM_HEAD)
        for event in said:
            await self._event(event)
            await asyncio.sleep(between_s)

    async def _hold(self, step: Held, asked: Asked) -> None:
        *said, last = pieces(Says(step.text), asked)
        if step.after_events:
            await self._stream(said[: step.after_events], head=_head(asked))
        await step.go.wait()
        if not step.after_events:
            await self._answer(Says(step.text), asked)
            return
        for event in said[step.after_events :]:
            await self._event(event)
        await self._event(last, ends=True)

    async def _flood(self, megabytes: int, asked: Asked) -> None:
        first, piece, *closing, last = events(Says("x" * 16_000), asked)
        await self._stream([first, *[piece] * (megabytes * 2**20 // len(piece)), *closing])
        await self._event(last, ends=True)

    async def _event(self, event: bytes, *, ends: bool = False) -> None:
        self.events += 1
        await self._write(_chunk(event) + (b"0\r\n\r\n" if ends else b""))
        self.upstream.changed()

    async def _write(self, data: bytes) -> None:
        self.transport.write(data)
        self.sent += len(data)
        self.upstream.changed()
        await self._writable.wait()

    async def _reset(self, data: bytes) -> None:
        await self._write(data)
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._leave()

    def _leave(self) -> None:
        self.asked = None
        self.transport.close()

    async def _again(self, data: bytes, every_s: float) -> None:
        while True:
            await self._write(data)
            await asyncio.sleep(every_s)

    async def _forever(self) -> None:
        await asyncio.get_running_loop().create_future()


FLOOD = 4096
"""Signs of life that are written at once where there is no pause between them."""
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


def _head(asked: Asked) -> bytes:
    """Return the head of an answer whose length is not known yet."""
    return _STREAM_HEAD if asked.stream else _WHOLE_HEAD


def _http(status: int, body: bytes, headers: dict[str, str]) -> bytes:
    """Return an answer with a body of known length."""
    all_headers = {"content-type": "application/json", **headers, "content-length": f"{len(body)}"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode("latin-1") + body


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _rendered(says: Says, asked: Asked) -> bytes:
    """Return the answer as one piece of bytes, to be cut anywhere."""
    if asked.stream:
        return _STREAM_HEAD + b"".join(map(_chunk, events(says, asked))) + b"0\r\n\r\n"
    return _http(200, whole(says, asked), {})


def _body(said: bytes | str | dict[str, Any] | None) -> bytes:
    if said is None:
        return _error("the upstream failed", "server_error")
    if isinstance(said, dict):
        return json.dumps(said).encode()
    return said.encode() if isinstance(said, str) else said


def _error(message: str, kind: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()
