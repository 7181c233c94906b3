"""What every transport promises of a request whose body comes in pieces."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from gateway.core.errors import BadRequest, TimedOut, Unreachable
from gateway.engine.http1 import NativeTransport
from gateway.engine.transport import Deadline, Transport
from gateway.providers.base import Request
from tests.script import Fails, Resets, ScriptedUpstream

PIECES = [b"one", b"x" * 100_000, b"three"]
WHOLE = b"".join(PIECES)


class Body:
    """A body in pieces, of which the last may be a mistake."""

    def __init__(self, *pieces: bytes, length: int | None = None, fails: bool = False, once: bool = False) -> None:
        self.length = length
        self.taken = 0
        self.closed = False
        self._pieces = pieces
        self._fails = fails
        self._once = once

    @property
    def spent(self) -> bool:
        return self._once and self.taken > 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self._pieces:
                await asyncio.sleep(0)
                self.taken += 1
                yield piece
            if self._fails:
                raise BadRequest("the body broke off")
        finally:
            self.closed = True


async def send(transport: Transport, upstream: ScriptedUpstream, body: Body) -> int:
    deadline = Deadline(asyncio.get_running_loop().time() + 30.0, "total")
    request = Request(f"{upstream.url}/files", b"", {"content-type": "a/b"}, upload=body)
    response = await transport.send(request, connect_s=30.0, deadline=deadline)
    try:
        await response.read(1 << 20)
        return response.status
    finally:
        response.close()


@pytest.mark.parametrize("length", [None, len(WHOLE)])
async def test_it_arrives_whole(transport: Transport, upstream: ScriptedUpstream, length: int | None):
    """With its length where that is known, and else in chunks; and the connection is used again."""
    for _ in range(2):
        assert await send(transport, upstream, Body(*PIECES, length=length)) == 200
    for asked in upstream.requests:
        assert asked.body == WHOLE
        assert asked.headers.get("content-length") == (None if length is None else str(length))
        assert ("transfer-encoding" in asked.headers) == (length is None)
    assert upstream.accepted == 1


async def test_an_empty_one_is_a_body_too(transport: Transport, upstream: ScriptedUpstream):
    """Its end is said."""
    assert await send(transport, upstream, Body()) == 200
    assert upstream.requests[0].body == b""


@pytest.mark.parametrize("length", [None, 10_000_000])
async def test_one_that_fails_never_looks_whole(transport: Transport, upstream: ScriptedUpstream, length: int | None):
    """What went wrong is told as it is, the connection is closed, and the upstream has no request."""
    body = Body(*PIECES, length=length, fails=True)
    with pytest.raises(BadRequest, match="broke off"):
        await send(transport, upstream, body)
    await upstream.until(lambda: upstream.accepted and not upstream.connections)
    assert not upstream.asked and body.closed


async def test_a_closed_connection_is_asked_again_where_the_body_can_be_sent_again(upstream: ScriptedUpstream):
    """An upstream hangs up on an idle connection just when it is used: that is nobody's failure."""
    transport = NativeTransport()
    assert await send(transport, upstream, Body(*PIECES)) == 200
    upstream.hang_up_idle()
    assert await send(transport, upstream, Body(*PIECES)) == 200
    assert [asked.body for asked in upstream.requests] == [WHOLE, WHOLE]
    await transport.close()


async def test_what_was_taken_is_not_sent_as_if_it_were_all(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
):
    """A body of which the beginning is gone fails; and no place in the pool is lost by it."""
    transport = NativeTransport(most_connections=1)
    upstream.will("Hello", Resets(after=0), "Hello")
    assert await send(transport, upstream, Body(*PIECES)) == 200
    with pytest.raises(Unreachable):
        await send(transport, upstream, Body(*PIECES, once=True))
    assert await send(transport, upstream, Body(*PIECES)) == 200
    assert all(asked.body == WHOLE for asked in upstream.requests)
    await transport.close()


class Refusing:
    """An upstream that answers before it has the whole of a request, and keeps what it was sent."""

    def __init__(self, *, closes: bool = False) -> None:
        self.sent = b""
        self._closes = closes

    async def __aenter__(self) -> "Refusing":
        self._server = await asyncio.start_server(self._refuse, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/files"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sent = await reader.readuntil(b"\r\n\r\n")
        self.sent += await reader.readexactly(6)  # the first piece, as a chunk
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nlong")
        if self._closes:
            writer.write_eof()
        self.sent += await reader.read()
        writer.close()


class Waiting(Body):
    """A body whose client sends one piece and is then silent."""

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            yield b"x"
            await asyncio.get_running_loop().create_future()
        finally:
            self.closed = True


@pytest.mark.parametrize("closes", [False, True])
async def test_an_early_refusal_is_heard_while_the_client_is_silent(closes: bool):
    """Not with the next piece, which may take a minute; and the request never looks whole."""
    async with Refusing(closes=closes) as upstream:
        transport, body = NativeTransport(), Waiting()
        deadline = Deadline(asyncio.get_running_loop().time() + 30.0, "total")
        request = Request(upstream.url, b"", {}, upload=body)
        async with asyncio.timeout(25):
            response = await transport.send(request, connect_s=2.0, deadline=deadline)
            assert (response.status, await response.read(100), body.closed) == (413, b"long", True)
        response.close()
        await transport.close()
        assert upstream.sent.endswith(b"\r\n\r\n1\r\nx\r\n")


async def test_an_early_refusal_ends_what_would_go_on_for_ever():
    """The rest is neither taken from the client nor sent."""

    class Endless(Body):
        async def pieces(self) -> AsyncGenerator[bytes, None]:
            yield b"x"
            while True:
                await asyncio.sleep(0.001)
                yield b"x" * 1000

    async with Refusing() as upstream:
        transport = NativeTransport()
        deadline = Deadline(asyncio.get_running_loop().time() + 30.0, "total")
        request = Request(upstream.url, b"", {}, upload=Endless())
        response = await transport.send(request, connect_s=30.0, deadline=deadline)
        assert response.status == 413
        response.close()
        await transport.close()


async def test_an_upstream_that_hangs_up_while_the_client_is_silent_is_noticed(upstream: ScriptedUpstream):
    """At once, and the client's body is let go of."""
    transport, body = NativeTransport(), Waiting()
    asking = asyncio.ensure_future(send(transport, upstream, body))
    await upstream.until(lambda: upstream.connections)
    for connection in list(upstream.connections):
        connection.transport.abort()
    with pytest.raises(Unreachable, match="before it answered"):
        await asking
    assert body.closed
    await transport.close()


async def test_a_silent_client_is_bounded_by_the_deadline(upstream: ScriptedUpstream):
    """The body's own pieces may never come."""
    loop = asyncio.get_running_loop()
    transport, deadline = NativeTransport(), Deadline(loop.time() + 30.0, "total")

    class Hasty(Waiting):
        async def pieces(self) -> AsyncGenerator[bytes, None]:
            deadline.at_s = loop.time() + 0.1
            async with aclosing(super().pieces()) as pieces:
                async for piece in pieces:
                    yield piece

    body = Hasty()
    request = Request(f"{upstream.url}/files", b"", {}, upload=body)
    with pytest.raises(TimedOut, match="total"):
        await transport.send(request, connect_s=30.0, deadline=deadline)
    assert body.closed
    await transport.close()


async def test_who_is_cancelled_while_its_client_is_silent_leaves_nothing(upstream: ScriptedUpstream):
    """The generator is closed, and the connection."""
    transport, body = NativeTransport(), Waiting()
    asking = asyncio.ensure_future(send(transport, upstream, body))
    await upstream.until(lambda: upstream.connections)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await upstream.until(lambda: not upstream.connections)
    await transport.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("status", [400, 500])
async def test_an_error_is_an_answer(transport: Transport, upstream: ScriptedUpstream, status: int):
    """As for every request."""
    upstream.will(Fails(status))
    assert await send(transport, upstream, Body(*PIECES)) == status
