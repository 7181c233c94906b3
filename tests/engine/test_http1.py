"""What our own HTTP client promises beyond what every transport does."""

import asyncio
import random
import ssl
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.errors import GatewayError, TimedOut, Unreachable
from gateway.engine import http1, http1_connection
from gateway.engine.http1 import NativeTransport, Origin
from gateway.engine.http1_connection import SLICE_BYTES, Connection, idle_limit_s
from gateway.engine.http1_exchange import MOST_UNREAD_BYTES, Exchange
from gateway.engine.outgoing import target_of
from gateway.providers.base import Request
from tests.engine.answers import pieces_of
from tests.engine.certs import server_context
from tests.engine.test_transport_contract import MOST, ask, begin, chat, within
from tests.script import Cut, Fails, Raw, Resets, ScriptedUpstream, Silent, Slow, Stalls

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def transport() -> AsyncGenerator[NativeTransport, None]:
    transport = NativeTransport()
    yield transport
    await transport.close()


@pytest.fixture
async def narrow() -> AsyncGenerator[NativeTransport, None]:
    transport = NativeTransport(most_connections=1)
    yield transport
    await transport.close()


def origin_of(transport: NativeTransport) -> Origin:
    (origin,) = transport._origins.values()
    return origin


# ── Connections that are used again ──────────────────────────────────────────────────────────────────────────────────


async def test_no_caller_sees_the_race_for_an_idle_connection(transport: NativeTransport, upstream: ScriptedUpstream):
    """Servers hang up on idle connections just when we use them; 2,000 calls, a few hundred of them in that moment."""
    rng = random.Random(3)

    async def caller() -> None:
        for _ in range(250):
            assert b"Hello" in await ask(transport, chat(upstream))
            await asyncio.sleep(rng.random() * 0.001)

    async def hang_up() -> None:
        while True:
            upstream.hang_up_idle()
            await asyncio.sleep(rng.random() * 0.002)

    hanging_up = asyncio.ensure_future(hang_up())
    await asyncio.gather(*(caller() for _ in range(8)))
    hanging_up.cancel()
    assert upstream.asked >= 2000
    assert upstream.accepted > 50


async def test_a_stale_connection_is_replaced_once(transport: NativeTransport, upstream: ScriptedUpstream):
    """A request is sent again on a new connection, and never a third time."""
    await ask(transport, chat(upstream))
    upstream.will(Resets(), Resets(), "never asked")
    with pytest.raises(Unreachable, match="before it answered"):
        await ask(transport, chat(upstream))
    assert (upstream.asked, upstream.accepted) == (3, 2)


async def test_after_one_byte_a_request_is_not_sent_again(transport: NativeTransport, upstream: ScriptedUpstream):
    """The upstream has begun to answer, so it has worked, and will charge for it."""
    await ask(transport, chat(upstream))
    upstream.will(Resets(after=1))
    with pytest.raises(Unreachable, match="before it answered"):
        await ask(transport, chat(upstream))
    assert upstream.asked == 2


async def test_a_connection_that_dies_late_was_not_stale(
    transport: NativeTransport, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
):
    """An upstream that crashes while it works had got the request; sending it again would double the bill."""
    monkeypatch.setattr(http1_connection, "STALE_WITHIN_S", -1.0)
    await ask(transport, chat(upstream))
    upstream.will(Resets())
    with pytest.raises(Unreachable):
        await ask(transport, chat(upstream))
    assert upstream.asked == 2


@pytest.mark.parametrize("said", [b"close", b"Close", b"x-a, close"])
async def test_connection_close_is_obeyed(transport: NativeTransport, upstream: ScriptedUpstream, said: bytes):
    """A server that says so will not read another request there."""
    upstream.will(Raw(OK + b"connection: %b\r\ncontent-length: 2\r\n\r\n{}" % said, closes=False))
    assert await ask(transport, chat(upstream)) == b"{}"
    await upstream.until(lambda: not upstream.connections)


@pytest.mark.parametrize("tls", [False, True])
async def test_an_upstream_that_closes_its_half_is_asked_on_another_connection(tls: bool, tmp_path: Path):
    """It would still read what we ask there, and could not answer any more."""
    context = server_context(tmp_path) if tls else None
    async with ScriptedUpstream(tls=context) as upstream:
        transport = NativeTransport(ssl.create_default_context(cafile=tmp_path / "ca.pem") if tls else None)
        await ask(transport, chat(upstream))
        (connection,) = upstream.connections
        if connection.transport.can_write_eof():
            connection.transport.write_eof()
        else:
            connection.transport.close()  # TLS has no halves
        await upstream.until(lambda: not upstream.connections)
        assert b"Hello" in await ask(transport, chat(upstream))
        assert (upstream.asked, upstream.accepted) == (2, 2)
        await transport.close()


async def test_a_half_that_is_closed_ends_a_body_without_a_length(transport: NativeTransport):
    """Our own half stays open until then: what we have to say was said. And a body with a length is broken by it."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + (b"content-length: 5\r\n\r\n{}" if b"/long" in head else b"\r\n{}"))
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert await ask(transport, Request(f"{url}/short", b"", {}, "GET")) == b"{}"
    with pytest.raises(Unreachable, match="after 2 bytes"):
        await ask(transport, Request(f"{url}/long", b"", {}, "GET"))
    server.close()


async def test_a_half_that_is_closed_instead_of_an_answer_is_no_answer(transport: NativeTransport):
    """An upstream that has nothing to say is not waited for, though it might still read."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    with pytest.raises(Unreachable, match="before it answered"):
        await ask(transport, Request(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", b"", {}, "GET"))
    server.close()


async def test_http_1_0_is_not_kept(transport: NativeTransport, upstream: ScriptedUpstream):
    """It closes unless it says otherwise."""
    upstream.will(Raw(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", closes=False))
    assert await ask(transport, chat(upstream)) == b"{}"
    await upstream.until(lambda: not upstream.connections)


@pytest.mark.parametrize("rest", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"\0" * 70_000])
async def test_bytes_too_many_end_the_connection(transport: NativeTransport, upstream: ScriptedUpstream, rest: bytes):
    """They would be taken for the answer to the next caller's question."""
    upstream.will(Raw(OK + b"content-length: 2\r\n\r\n{}" + rest, closes=False))
    assert await ask(transport, chat(upstream)) == b"{}"
    assert b"Hello" in await ask(transport, chat(upstream))
    assert upstream.accepted == 2


async def test_an_idle_connection_that_speaks_is_closed(transport: NativeTransport, upstream: ScriptedUpstream):
    """Some servers send a 408 before they hang up. It answers nobody."""
    await ask(transport, chat(upstream))
    (connection,) = upstream.connections
    connection.transport.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
    await upstream.until(lambda: not upstream.connections)
    assert b"Hello" in await ask(transport, chat(upstream))


@pytest.mark.asyncio(loop_factories=["asyncio"])  # how long a connection is idle, only a steady clock can say
async def test_idle_connections_are_closed_and_the_one_in_use_is_not(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
):
    """The connection used last is used next, so that those which a burst left behind grow old."""
    monkeypatch.setattr(http1_connection, "IDLE_S", 0.2)
    monkeypatch.setattr(http1, "SWEEP_S", 0.05)
    transport = NativeTransport()
    upstream.will(*[Slow(first_s=0.05)] * 3)
    await asyncio.gather(*(ask(transport, chat(upstream)) for _ in range(3)))
    assert len(upstream.connections) == 3
    for _ in range(12):
        await ask(transport, chat(upstream))
        await asyncio.sleep(0.03)
    assert (len(upstream.connections), upstream.accepted) == (1, 3)
    await upstream.until(lambda: not upstream.connections)
    assert origin_of(transport)._places == 0
    await transport.close()


def test_an_upstream_may_say_how_long_it_waits():
    """We hang up a second before it would; 20 s if it waits longer, or says nothing to the point."""
    values = ("timeout=5", "max=100, timeout=60", "soon", "timeout=0")
    assert [idle_limit_s(value) for value in values] == [4.0, 20.0, 20.0, 0.0]


# ── Heads and bodies ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_chunks_may_have_extensions_and_trailers(transport: NativeTransport, upstream: ScriptedUpstream):
    """Neither is part of the body, nor of the headers."""
    body = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nx-checksum: 1\r\n\r\n"
    upstream.will(Raw(OK + b"transfer-encoding: chunked\r\n\r\n" + body, closes=False))
    response = await begin(transport, chat(upstream))
    assert await response.read(MOST) == b"abcde"
    assert "x-checksum" not in response.headers
    await ask(transport, chat(upstream))
    assert upstream.accepted == 1


async def test_what_arrived_together_is_one_piece(transport: NativeTransport, upstream: ScriptedUpstream):
    """A reader that falls behind catches up in one step, whatever the chunks were."""
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b"abcdefgh") + b"0\r\n\r\n"
    upstream.will(Raw(OK + b"transfer-encoding: chunked\r\n\r\n" + body, closes=False))
    response = await begin(transport, chat(upstream))
    await asyncio.sleep(0.02)
    assert [piece async for piece in pieces_of(response)] == [b"abcdefgh"]
    response.close()


async def test_of_a_repeated_header_the_last_counts(transport: NativeTransport, upstream: ScriptedUpstream):
    """As the contract says, and so that no list type reaches every reader of headers."""
    upstream.will(Raw(OK + b"x-a: 1\r\nX-A: 2\r\ncontent-length: 0\r\n\r\n", closes=False))
    response = await begin(transport, chat(upstream))
    assert response.headers["x-a"] == "2"
    response.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
        OK + b"content-length: two\r\n\r\n",
        OK + b"a b\r\n\r\n",
    ],
)
async def test_two_meanings_are_none(transport: NativeTransport, upstream: ScriptedUpstream, answer: bytes):
    """An answer that two readers could end at two places is how answers are smuggled to other callers."""
    upstream.will(Raw(answer, closes=False))
    with pytest.raises(Unreachable, match="is no HTTP"):
        await ask(transport, chat(upstream))
    await upstream.until(lambda: not upstream.connections)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", "another protocol"),
        (OK + b"transfer-encoding: gzip\r\n\r\n", "transfer-encoding"),
        (OK + b"content-encoding: br\r\ncontent-length: 1\r\n\r\nx", 'content-encoding "br"'),
        (OK + b"x: " + b"a" * 200_000 + b"\r\n\r\n", "longer than 65536"),
        (OK + b"x: " + b"a" * 200_000, "longer than 65536"),
        (OK + b"x: y\r\n" * 20_000 + b"\r\n", "longer than 65536"),
        (b"HTTP/1.1 103 Wait\r\n\r\n" * 10_000, "longer than 65536"),
        (OK + b"transfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 200_000, "longer than 65536"),
        (OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 200_000, "longer than 65536"),
    ],
)
async def test_what_we_cannot_or_will_not_read_is_unreachable(
    transport: NativeTransport, upstream: ScriptedUpstream, answer: bytes, why: str
):
    """Each with its reason, and none fills our memory."""
    upstream.will(Raw(answer, closes=False))
    with pytest.raises(Unreachable, match=why):
        await ask(transport, chat(upstream))
    await upstream.until(lambda: not upstream.connections)


class _Home:
    """A pool that counts what comes back to it."""

    def __init__(self) -> None:
        self.freed = 0

    def release(self, connection: Connection) -> None:
        raise AssertionError("nothing to keep")

    def free(self) -> None:
        self.freed += 1

    def forget(self, connection: Connection) -> None:
        pass


async def test_a_long_head_is_refused_though_a_body_comes_right_behind():
    """The bound is on the head itself, however its bytes are cut on their way."""
    loop = asyncio.get_running_loop()
    home, exchange = _Home(), Exchange(loop, within(5.0), wants_body=True)
    connection = Connection(home, loop)
    connection.exchange, exchange.connection = exchange, connection
    connection.data_received(OK + b"content-length: 2\r\n" + b"x: y\r\n" * 20_000 + b"\r\n{}")
    assert exchange.failure is not None
    assert "longer than 65536" in exchange.failure.message
    assert home.freed == 1


async def test_what_came_before_damage_can_be_read_though_both_came_in_one_go():
    """How the network cuts what an upstream sends does not decide what its client sees of it."""
    loop = asyncio.get_running_loop()
    home, exchange = _Home(), Exchange(loop, within(5.0), wants_body=True)
    connection = Connection(home, loop)
    connection.exchange, exchange.connection = exchange, connection
    connection.data_received(OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\nno chunk\r\n")
    assert await exchange.more() == b"{}"
    with pytest.raises(Unreachable, match=r"no HTTP/1\.1"):
        await exchange.more()
    assert home.freed == 1


async def test_packed_bodies_may_have_members_and_may_not_be_cut(
    transport: NativeTransport, upstream: ScriptedUpstream
):
    """gzip allows several members in a row; half of one, or none, is a broken answer, whatever its length said."""

    def packed(text: bytes) -> bytes:
        packer = zlib.compressobj(wbits=31)
        return packer.compress(text) + packer.flush()

    both = packed(b"one ") + packed(b"two")
    for body in (both, both[:-4], b"plain"):
        head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
        upstream.will(Raw(head + body, closes=False))
    assert await ask(transport, chat(upstream)) == b"one two"
    with pytest.raises(Unreachable, match="ends too early"):
        await ask(transport, chat(upstream))
    with pytest.raises(Unreachable, match="cannot be unpacked"):
        await ask(transport, chat(upstream))


async def test_who_does_not_read_is_not_written_to(transport: NativeTransport, upstream: ScriptedUpstream):
    """A slow client slows its upstream down, instead of filling our memory."""
    size = 20_000_000
    upstream.will(Raw(OK + b"content-length: %d\r\n\r\n" % size + b"x" * size, closes=False))
    response = await begin(transport, chat(upstream), within(30.0))
    await asyncio.sleep(0.2)
    assert response.unread <= 2 * MOST_UNREAD_BYTES
    assert len(await response.read(size)) == size
    assert b"Hello" in await ask(transport, chat(upstream))
    assert upstream.accepted == 1


@asynccontextmanager
async def deaf(answer: bytes = b"") -> AsyncGenerator[str, None]:
    """A server that stops reading after the head, and answers at once if it has an answer."""
    heard: list[asyncio.Transport] = []

    class Deaf(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            heard.append(transport)  # type: ignore[arg-type]

        def data_received(self, data: bytes) -> None:
            heard[-1].pause_reading()
            heard[-1].write(answer)

    server = await asyncio.get_running_loop().create_server(Deaf, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()
    for transport in heard:
        transport.abort()


async def test_an_early_refusal_is_heard(transport: NativeTransport):
    """A server may answer before it has read a long request, and never read the rest."""
    async with deaf(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nlong") as url:
        response = await begin(transport, Request(url, b"x" * 30_000_000, {}))
        assert (response.status, await response.read(MOST)) == (413, b"long")
        assert not origin_of(transport)._idle


async def test_an_early_refusal_is_heard_before_its_reason(transport: NativeTransport):
    """The status is enough to stop sending, though the body that explains it is still to come."""
    async with deaf(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nlo") as url:
        async with asyncio.timeout(20):  # well before the deadline, which would end the sending too
            response = await begin(transport, Request(url, b"x" * 30_000_000, {}))
        assert (response.status, await anext(pieces_of(response))) == (413, b"lo")
        response.close()


async def test_an_early_answer_is_an_answer(transport: NativeTransport):
    """Also a good one: who has read enough need not read the rest. The connection, half a request long, is closed."""
    async with deaf(OK + b"content-length: 2\r\n\r\n{}") as url:
        assert await ask(transport, Request(url, b"x" * 30_000_000, {})) == b"{}"
        assert not origin_of(transport)._idle
        assert origin_of(transport)._places == 0


async def test_a_long_request_is_written_as_it_is_taken(transport: NativeTransport):
    """An upstream that does not read costs us a slice of memory, and its caller the deadline."""
    async with deaf() as url:
        asking = asyncio.ensure_future(ask(transport, Request(url, b"x" * 30_000_000, {}), within(0.3)))
        await asyncio.sleep(0.15)
        (connection,) = origin_of(transport).connections
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() <= 2 * SLICE_BYTES
        with pytest.raises(TimedOut):
            await asking


# ── The line ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_more_callers_than_connections_wait_in_line(upstream: ScriptedUpstream):
    """Never more connections than allowed, and everybody is served."""
    transport = NativeTransport(most_connections=2)
    upstream.will(*[Slow(first_s=0.01)] * 10)
    await asyncio.gather(*(ask(transport, chat(upstream, number=number)) for number in range(10)))
    assert sorted(asked.json["number"] for asked in upstream.requests) == list(range(10))
    assert upstream.accepted == 2
    await transport.close()


async def test_the_line_is_first_come_first_served(narrow: NativeTransport, upstream: ScriptedUpstream):
    """Whoever waited longest is next."""
    upstream.will(Stalls(after_events=1))
    held = await begin(narrow, chat(upstream, stream=True))
    asking = [asyncio.ensure_future(ask(narrow, chat(upstream, number=number))) for number in range(6)]
    while len(origin_of(narrow)._line) < 6:
        await asyncio.sleep(0)
    held.close()
    await asyncio.gather(*asking)
    assert [asked.json["number"] for asked in upstream.requests[1:]] == list(range(6))


async def test_the_line_is_bounded_by_the_deadline(narrow: NativeTransport, upstream: ScriptedUpstream):
    """Waiting for a connection is waiting."""
    upstream.will(Silent())
    first = asyncio.ensure_future(ask(narrow, chat(upstream)))
    await upstream.until(lambda: upstream.asked)
    with pytest.raises(TimedOut, match="first_token"):
        await ask(narrow, chat(upstream), within(0.05, "first_token"))
    first.cancel()
    await asyncio.wait({first})
    assert b"Hello" in await ask(narrow, chat(upstream))


async def test_who_leaves_the_line_takes_no_place_along(narrow: NativeTransport, upstream: ScriptedUpstream):
    """Not even when the place was given in the very moment of leaving."""
    upstream.will(Stalls(after_events=1))
    held = await begin(narrow, chat(upstream, stream=True))
    second = asyncio.ensure_future(ask(narrow, chat(upstream)))
    third = asyncio.ensure_future(ask(narrow, chat(upstream)))
    await asyncio.sleep(0.01)
    held.close()
    second.cancel()
    assert b"Hello" in await third
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_a_connection_given_to_one_who_leaves_goes_to_the_next(
    narrow: NativeTransport, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
):
    """The same with a live connection in place of an empty place."""
    upstream.will(Slow(first_s=0.05))
    first, second, third = (asyncio.ensure_future(ask(narrow, chat(upstream))) for _ in range(3))
    await upstream.until(lambda: upstream.asked)
    origin = origin_of(narrow)
    release = origin.release

    def release_and_leave(connection: Connection) -> None:
        release(connection)
        second.cancel()

    monkeypatch.setattr(origin, "release", release_and_leave)
    assert b"Hello" in await first
    assert b"Hello" in await third
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (upstream.asked, upstream.accepted) == (2, 1)


async def test_every_place_comes_back(upstream: ScriptedUpstream):
    """Resets, cuts, cancellations and stale connections at random, for five places: then all five still work."""
    rng = random.Random(11)
    transport = NativeTransport(most_connections=5)
    gate = asyncio.Semaphore(20)
    steps = ["Hello", Resets(), Resets(after=30), Cut(after_events=2), Silent(), Fails(500), Slow(first_s=0.005)]

    async def one(number: int) -> None:
        async with gate:
            try:
                async with asyncio.timeout(rng.random() * 0.03):
                    await ask(transport, chat(upstream, stream=bool(number % 2)), within(rng.random() * 0.05))
            except (TimeoutError, GatewayError):
                pass
            if number % 7 == 0:
                upstream.hang_up_idle()

    upstream.will(*rng.choices(steps, k=400))
    await asyncio.gather(*map(one, range(400)))
    upstream.script.clear()
    upstream.will(*[Slow(first_s=0.05)] * 5)
    before = upstream.asked
    five = [asyncio.ensure_future(ask(transport, chat(upstream))) for _ in range(5)]
    await upstream.until(lambda: upstream.asked == before + 5)
    assert all(b"Hello" in answer for answer in await asyncio.gather(*five))
    origin = origin_of(transport)
    assert origin._places == len(origin._idle) == len(origin.connections) <= 5
    await transport.close()


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "host", "port", "head"),
    [
        ("https://api.example/v1/x", "api.example", 443, " /v1/x HTTP/1.1\r\nhost: api.example\r\n"),
        ("http://h", "h", 80, " / HTTP/1.1\r\nhost: h\r\n"),
        ("http://H:8080?a=b#c", "h", 8080, " /?a=b HTTP/1.1\r\nhost: h:8080\r\n"),
        ("http://[::1]:8000/v1", "::1", 8000, " /v1 HTTP/1.1\r\nhost: [::1]:8000\r\n"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, head: str):
    """The address to call, and what to say there; a fragment is nobody's business."""
    target = target_of(url)
    assert (target.host, target.port, target.head) == (host, port, head)


async def test_tls_speaks_http_1_1(tmp_path: Path):
    """A server that would rather speak HTTP/2 is told that we do not."""
    async with ScriptedUpstream(tls=server_context(tmp_path)) as upstream:
        transport = NativeTransport(ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        await ask(transport, chat(upstream))
        (connection,) = upstream.connections
        assert connection.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await transport.close()
