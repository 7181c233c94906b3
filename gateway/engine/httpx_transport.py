"""The same promises on httpx: slower; for upstreams with which our own client should not get along.

httpx 0.28's pool leaks a connection when a request is cancelled between being queued and receiving its head, until
none is left (httpcore#1093), and a client that leaves is just such a cancellation. So no two exchanges ever share a
pool: each has an `AsyncClient` to itself, which is used again when its answer was read to its end, and is closed with
everything in it when it was not.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import httpx

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine.dialing import refused
from gateway.engine.failures import CLOSED, broke_off, no_connection, no_place, timed_out
from gateway.engine.http1 import LIVES_S, MOST_CONNECTIONS
from gateway.engine.http1_exchange import SILENCE
from gateway.engine.inflate import Inflater
from gateway.engine.outgoing import USER_AGENT, WITH_BODY, Target, default_tls, header_lines, target_of
from gateway.engine.proxies import Proxy, ProxyFor, directly
from gateway.engine.transport import Deadline
from gateway.providers.base import Request

IDLE_S = 4.0
"""How long an idle client is kept: less than servers wait, as a request that meets a closing one is not sent again."""
BURIAL_S = 5.0
"""How long a cancelled request may take to end before its sockets are closed all the same."""
GRACE_S = 0.005
"""How long is waited for what may have arrived while the reader was slow, though `idle` has passed."""

T = TypeVar("T")
_Mapping = Callable[[httpx.HTTPError], Unreachable | TimedOut]


class HttpxTransport:
    """Sends requests through httpx. Satisfies `Transport`.

    A request that meets a connection which the upstream just closes fails as unreachable, and is not sent again here:
    httpx does not tell whether a byte of an answer had come. `connect_s` bounds TCP and TLS each, not their sum.

    Args:
        tls: what certificates are checked against; certifi's roots when left out.
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
        self._most = most_connections
        self._proxy_for = proxy_for
        self._places: dict[tuple[bool, str, int], asyncio.Semaphore] = {}
        self._idle: dict[tuple[bool, str, int], list[_Lane]] = {}
        self._busy: set[HttpxResponse] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, request: Request, *, connect_s: float, deadline: Deadline) -> "HttpxResponse":
        """Send `request` and return the answer's head.

        Raises:
            Unreachable: no connection, or it broke before the head came.
            TimedOut: the connection took longer than `connect_s`, or `deadline` passed.
            ValueError: the request is none that can be sent: a bug of the caller's.
        """
        target = target_of(request.url)
        header_lines(request.method, request.headers)
        if self._closed:
            raise Unreachable(CLOSED)
        key = (target.tls, target.host, target.port)
        await self._place(key, deadline)
        try:
            lane = self._lane(key, target)
        except BaseException:
            self._places[key].release()
            raise
        response = HttpxResponse(self, lane, deadline)
        self._busy.add(response)
        try:
            await response.begin(_outgoing(request, connect_s))
            if response.status == 407 and lane.forwarded:
                raise refused(407)
        except BaseException:
            response.close()
            raise
        return response

    async def close(self) -> None:
        """Close every connection; exchanges under way fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for response in list(self._busy):
            response.close()
        for lanes in self._idle.values():
            for lane in lanes:
                self.bury(lane, None)
        self._idle.clear()
        if self._burials:
            await asyncio.wait(self._burials, timeout=2 * BURIAL_S)

    # ── The responses' side ──────────────────────────────────────────────────────────────────────────────────────

    def release(self, response: "HttpxResponse", lane: "_Lane") -> None:
        """Take back a client whose answer was read to its end."""
        self._busy.discard(response)
        self._places[lane.key].release()
        loop = asyncio.get_running_loop()
        lane.idle_since_s = loop.time()
        if loop.time() >= lane.old_at_s:
            self.bury(lane, None)
            return
        self._idle.setdefault(lane.key, []).append(lane)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def discard(self, response: "HttpxResponse", lane: "_Lane", task: "asyncio.Task[Any] | None") -> None:
        """Close a client whose answer was not read to its end."""
        self._busy.discard(response)
        self.bury(lane, task).add_done_callback(lambda _: self._places[lane.key].release())

    def bury(self, lane: "_Lane", task: "asyncio.Task[Any] | None") -> "asyncio.Task[None]":
        """Close a client, in a task of its own that nobody's leaving can cancel."""
        burial = asyncio.get_running_loop().create_task(_burial(lane, task))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        return burial

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _place(self, key: tuple[bool, str, int], deadline: Deadline) -> None:
        """Wait in line for the right to one connection.

        Raises:
            TimedOut: the deadline passed in line.
            Unreachable: the transport was closed meanwhile.
        """
        places = self._places.setdefault(key, asyncio.Semaphore(self._most))
        scope = asyncio.timeout_at(deadline.at_s)
        try:
            async with scope:
                await places.acquire()
        except TimeoutError as error:
            raise no_place(self._most, deadline.clock) from error
        if self._closed:
            places.release()
            raise Unreachable(CLOSED)

    def _lane(self, key: tuple[bool, str, int], target: Target) -> "_Lane":
        idle = self._idle.get(key)
        if idle:
            return idle.pop()
        if self._tls is None:
            self._tls = default_tls()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=IDLE_S)
        proxy = self._proxy_for(target)
        client = httpx.AsyncClient(verify=self._tls, limits=limits, proxy=_as_httpx(proxy), trust_env=False)
        forwarded = proxy is not None and not target.tls
        return _Lane(key, client, forwarded, asyncio.get_running_loop().time() + LIVES_S)

    def _sweep(self) -> None:
        """Close clients that were idle for too long."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        for key, lanes in list(self._idle.items()):
            kept: list[_Lane] = []
            for lane in lanes:
                if loop.time() - lane.idle_since_s >= IDLE_S:
                    self.bury(lane, None)
                else:
                    kept.append(lane)
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]
        if self._idle:
            self._sweeper = loop.call_later(IDLE_S / 2, self._sweep)


class HttpxResponse:
    """An answer that comes through httpx. Satisfies `Response`."""

    ended = False
    """httpx does not tell before it is read."""

    def __init__(self, transport: HttpxTransport, lane: "_Lane", deadline: Deadline) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._transport = transport
        self._lane: _Lane | None = lane
        self._client = lane.client
        self._deadline = deadline
        self._task: asyncio.Task[Any] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._body: AsyncIterator[bytes] | None = None
        self._inflater: Inflater | None = None
        self._failure: Unreachable | TimedOut | None = None
        self._ended = False
        self._received = 0

    async def begin(self, request: httpx.Request) -> None:
        """Send the request and wait for the head."""
        answer = await self._within(self._client.send(request, stream=True), _before_the_head)
        self.status = answer.status_code
        self.headers = {name.lower(): value for name, value in answer.headers.multi_items()}
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding and encoding != "identity" and request.method != "HEAD":
            self._inflater = Inflater(encoding)
        self._body = _body_of(answer)

    async def more(self) -> bytes:
        """Return the next piece of the body; nothing at its end."""
        return await (self._next() if self._inflater is None else self._inflater.more(self._next))

    async def read(self, most: int) -> bytes:
        """Return the whole body, of at most `most` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.more():
            size += len(data)
            if size > most:
                raise self._fail(Unreachable(f"the upstream's answer is longer than {most} bytes"))
            parts.append(data)
        return b"".join(parts)

    def whole(self) -> None:
        """Know of no body that it is here before it was asked for."""

    def drain(self, within_s: float) -> None:
        """Have it read to its end in a task, if that comes soon."""
        if self._lane is None:
            return
        self._deadline.at_s = asyncio.get_running_loop().time() + within_s
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        with contextlib.suppress(Unreachable, TimedOut):
            while await self.more():
                pass
        self.close()

    def close(self) -> None:
        """Let go of it; a body that was not read to its end takes the connection with it."""
        if self._lane is not None:
            self._fail(Unreachable("the answer was closed before its end"))

    async def _next(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return b""
        assert self._body is not None
        data = await self._within(_pull(self._body), self._in_the_body)
        self._received += len(data)
        if not data and self._lane is not None:
            self._ended = True
            lane, self._lane = self._lane, None
            self._transport.release(self, lane)
        return data

    async def _within(self, work: Coroutine[Any, Any, T], mapped: _Mapping) -> T:
        """Wait for httpx inside the deadline. It works in a task of its own, so that a wait can end without it."""
        loop = asyncio.get_running_loop()
        task = self._task = loop.create_task(work)
        grace_s = GRACE_S if self._deadline.clock in SILENCE else 0.0
        while not task.done():
            left_s = max(self._deadline.at_s - loop.time(), grace_s)
            if left_s <= 0:
                raise self._fail(timed_out(self._deadline.clock))
            await asyncio.wait({task}, timeout=left_s)
            grace_s = 0.0
            if self._failure is not None:  # closed from elsewhere
                raise self._failure
        self._task = None
        try:
            return task.result()
        except httpx.HTTPError as error:
            raise self._fail(mapped(error)) from error

    def _in_the_body(self, error: httpx.HTTPError) -> Unreachable:
        return broke_off(self._received)

    def _fail(self, failure: Unreachable | TimedOut) -> Unreachable | TimedOut:
        self._failure = self._failure or failure
        lane, self._lane = self._lane, None
        if lane is not None:
            self._transport.discard(self, lane, self._task)
        return self._failure


class _Lane:
    """A client that one exchange uses at a time."""

    def __init__(self, key: tuple[bool, str, int], client: httpx.AsyncClient, forwarded: bool, old_at_s: float) -> None:
        self.key = key
        self.forwarded = forwarded
        """Requests go to a proxy as they are, and it may answer them itself."""
        self.client = client
        self.old_at_s = old_at_s
        """From then on it is not used again."""
        self.idle_since_s = 0.0


def _as_httpx(proxy: Proxy | None) -> httpx.Proxy | None:
    """Return a proxy as httpx takes it."""
    if proxy is None:
        return None
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    scheme = "http" if proxy.tls is None else "https"
    said = proxy.authorization.reveal()
    headers = {"proxy-authorization": said} if said else {}
    return httpx.Proxy(f"{scheme}://{host}:{proxy.port}", headers=headers, ssl_context=proxy.tls)


async def _burial(lane: _Lane, task: "asyncio.Task[Any] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task}, timeout=BURIAL_S)
        if task.done() and not task.cancelled():
            task.exception()  # looked at, and of no interest: its caller was told why, or has gone
    await lane.client.aclose()


async def _body_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body, as packed as it came; at its end, give the connection back to the client."""
    assert isinstance(answer.stream, httpx.AsyncByteStream)
    async for data in answer.stream:
        yield data
    await answer.aclose()


async def _pull(body: AsyncIterator[bytes]) -> bytes:
    """Return the next piece that is not empty; nothing at the end."""
    async for data in body:
        if data:
            return data
    return b""


def _outgoing(request: Request, connect_s: float) -> httpx.Request:
    """Return httpx's request, made without a client: cookies that an upstream sets for one caller reach no other."""
    headers = {"user-agent": USER_AGENT, "accept-encoding": "identity", **request.headers}
    timeouts = {"connect": connect_s, "read": None, "write": None, "pool": None}
    content: bytes | AsyncIterator[bytes] | None = request.body or (b"" if request.method in WITH_BODY else None)
    if request.upload is not None:
        content = request.upload.pieces()
        if request.upload.length is not None:
            headers["content-length"] = str(request.upload.length)
    return httpx.Request(
        request.method, request.url, headers=headers, content=content, extensions={"timeout": timeouts}
    )


def _before_the_head(error: httpx.HTTPError) -> Unreachable | TimedOut:
    match error:
        case httpx.ConnectTimeout():
            return timed_out("connect")
        case httpx.ProxyError():
            return refused(int(status[0]) if (status := re.match(r"\d{3}", str(error))) else 0)
        case httpx.ConnectError():
            return no_connection(_cause(error) or OSError())
        case httpx.RemoteProtocolError() if "disconnected" not in str(error):
            return Unreachable("the upstream's answer is no HTTP/1.1")
        case _:
            return Unreachable("the upstream closed the connection before it answered")


def _cause(error: BaseException | None) -> OSError | None:
    """Return the system's own error, the innermost: httpx and what it stands on wrap it several times."""
    found: OSError | None = None
    while error is not None:
        found = error if isinstance(error, OSError) else found
        error = error.__cause__ or error.__context__
    return found
