"""What every transport promises of a request whose body comes in pieces."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.core.errors import BadRequest, Unreachable
from gateway.engine.http1 import NativeTransport
from gateway.engine.httpx_transport import HttpxTransport
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


@pytest.fixture(params=[NativeTransport, HttpxTransport])
async def transport(request: pytest.FixtureRequest) -> AsyncGenerator[Transport, None]:
    transport = request.param()
    yield transport
    await transport.close()


@pytest.fixture
async def upstream() -> AsyncGenerator[ScriptedUpstream, None]:
    async with ScriptedUpstream() as upstream:
        yield upstream


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


async def test_an_early_refusal_ends_it(upstream: ScriptedUpstream):
    """The rest is neither taken from the client nor sent."""
    heard = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        heard.set()
        await reader.read()
        writer.close()

    class Endless(Body):
        async def pieces(self) -> AsyncGenerator[bytes, None]:
            yield b"x"
            await heard.wait()
            while True:
                await asyncio.sleep(0.001)
                self.taken += 1
                yield b"x" * 1000

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    transport, body = NativeTransport(), Endless()
    deadline = Deadline(asyncio.get_running_loop().time() + 30.0, "total")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/files"
    response = await transport.send(Request(url, b"", {}, upload=body), connect_s=30.0, deadline=deadline)
    assert response.status == 413
    response.close()
    await transport.close()
    server.close()


@pytest.mark.parametrize("status", [400, 500])
async def test_an_error_is_an_answer(transport: Transport, upstream: ScriptedUpstream, status: int):
    """As for every request."""
    upstream.will(Fails(status))
    assert await send(transport, upstream, Body(*PIECES)) == status
