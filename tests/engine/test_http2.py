"""What HTTP/2 promises beyond what every transport does, and the same promises where they look different there."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from h2.errors import ErrorCodes

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine import http2_connection
from gateway.engine.http1_exchange import MOST_UNREAD_BYTES
from gateway.engine.http2 import MOST_TRIES, Http2Transport
from gateway.engine.http2_connection import STREAM_WINDOW_BYTES
from gateway.engine.outgoing import USER_AGENT
from gateway.engine.transport import Deadline, Response
from gateway.providers.base import Request
from tests.engine.answers import pieces_of
from tests.engine.certs import server_context
from tests.engine.forward_proxy import ForwardProxy
from tests.engine.h2_server import Asked, H2Server, hello
from tests.engine.test_transport_contract import MOST, within
from tests.engine.test_upload_contract import PIECES, WHOLE, Body, Waiting
from tests.script import ScriptedUpstream


@pytest.fixture
async def transport() -> AsyncGenerator[Http2Transport, None]:
    transport = Http2Transport()
    yield transport
    await transport.close()


@pytest.fixture
async def narrow() -> AsyncGenerator[Http2Transport, None]:
    transport = Http2Transport(most_connections=1)
    yield transport
    await transport.close()


async def begin(transport: Http2Transport, request: Request | str, deadline: Deadline | None = None) -> Response:
    asked = Request(request, b"{}", {"x-key": "k"}) if isinstance(request, str) else request
    return await transport.send(asked, connect_s=30.0, deadline=deadline or within(30.0))


async def ask(transport: Http2Transport, request: Request | str, deadline: Deadline | None = None) -> bytes:
    response = await begin(transport, request, deadline)
    try:
        return await response.read(MOST)
    finally:
        response.close()


async def test_a_request_arrives_as_it_was_given(transport: Http2Transport):
    """Method, path, query, headers and body; and what HTTP/1.1 says of a connection is not said."""

    async def handler(asked: Asked) -> None:
        await asked.whole.wait()
        await asked.answer(b"{}", 201, x_request_id="r1")

    async with H2Server(handler) as upstream:
        response = await begin(transport, upstream.url)
        assert (response.status, response.headers["x-request-id"]) == (201, "r1")
        assert await response.read(MOST) == b"{}"
        assert upstream.asked[0].body == b"{}"
        assert upstream.asked[0].headers == {
            ":method": "POST",
            ":scheme": "http",
            ":authority": f"127.0.0.1:{upstream.port}",
            ":path": "/v1/x?a=b",
            "user-agent": USER_AGENT,
            "accept-encoding": "identity",
            "x-key": "k",
            "content-length": "2",
        }


@pytest.mark.parametrize(
    "headers", [{"x": "a\r\nb"}, {"x y": "a"}, {"x": "…"}, {":path": "/"}, {"host": "a"}, {"te": "a"}]
)
async def test_a_header_that_is_none_is_a_bug_to_be_told_of(transport: Http2Transport, headers: dict[str, str]):
    """As in HTTP/1.1; and nobody is asked."""
    async with H2Server() as upstream:
        with pytest.raises(ValueError, match="header"):
            await ask(transport, Request(upstream.url, b"{}", headers))
        assert not upstream.connections


async def test_many_calls_share_a_connection(transport: Http2Transport):
    """That is what it is for: fifty at once, each with its own answer."""
    gate = asyncio.Event()

    async def handler(asked: Asked) -> None:
        await asked.whole.wait()
        await gate.wait()
        await asked.answer(asked.body)

    async with H2Server(handler) as upstream:
        asking = [
            asyncio.ensure_future(ask(transport, Request(upstream.url, b"%d" % number, {}))) for number in range(50)
        ]
        await upstream.until(lambda: len(upstream.asked) == 50)
        gate.set()
        assert await asyncio.gather(*asking) == [b"%d" % number for number in range(50)]
        assert len(upstream.connections) == 1


async def test_a_stream_comes_as_it_is_said(transport: Http2Transport):
    """Beside others, which say nothing."""
    said = asyncio.Event()

    async def handler(asked: Asked) -> None:
        asked.head()
        await asked.data(b"one")
        await said.wait()
        await asked.data(b"two", ends=True)

    async with H2Server(handler) as upstream:
        first, second = await begin(transport, upstream.url), await begin(transport, upstream.url)
        pieces = pieces_of(first)
        assert await anext(pieces) == b"one"
        said.set()
        assert [piece async for piece in pieces] == [b"two"]
        assert await second.read(MOST) == b"onetwo"


async def test_what_only_announces_an_answer_and_what_follows_it_are_skipped(transport: Http2Transport):
    """1xx and trailers are neither head nor body."""

    async def handler(asked: Asked) -> None:
        asked.head(103, link="</a>")
        asked.head(200)
        await asked.data(b"body")
        asked.trailers(checksum="1")

    async with H2Server(handler) as upstream:
        response = await begin(transport, upstream.url)
        assert await response.read(MOST) == b"body"
        assert (response.status, "link" in response.headers, "checksum" in response.headers) == (200, False, False)


async def test_a_head_has_no_body(transport: Http2Transport):
    """Though it tells the length of one."""

    async def handler(asked: Asked) -> None:
        asked.head(200, content_length="10", ends=True)

    async with H2Server(handler) as upstream:
        assert await ask(transport, Request(upstream.url, b"", {}, "HEAD")) == b""
        assert upstream.asked[0].headers[":method"] == "HEAD"


# ── Letting go ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_leaves_resets_his_own_stream_alone(transport: Http2Transport):
    """The upstream knows at once, and everybody else's answers go on."""
    said = asyncio.Event()

    async def handler(asked: Asked) -> None:
        asked.head()
        await asked.data(b"one")
        await said.wait()
        await asked.data(b"two", ends=True)

    async with H2Server(handler) as upstream:
        stays, leaves = await begin(transport, upstream.url), await begin(transport, upstream.url)
        await anext(pieces_of(leaves))
        leaves.close()
        leaves.close()
        await upstream.until(lambda: upstream.asked[1].reset is not None)
        assert upstream.asked[1].reset == ErrorCodes.CANCEL
        said.set()
        assert await stays.read(MOST) == b"onetwo"
        assert await ask(transport, upstream.url) == b"onetwo"
        assert len(upstream.connections) == 1


async def test_who_is_cancelled_while_waiting_resets_his_stream(transport: Http2Transport):
    """Before the head as behind it."""

    async def handler(asked: Asked) -> None:
        await asked.forever()

    async with H2Server(handler) as upstream:
        asking = asyncio.ensure_future(ask(transport, upstream.url))
        await upstream.until(lambda: upstream.asked)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await upstream.until(lambda: upstream.asked[0].reset == ErrorCodes.CANCEL)
        upstream.handler = hello
        assert await ask(transport, upstream.url) == b"Hello"


async def test_silence_times_out_and_a_dead_connection_is_not_used_again(transport: Http2Transport):
    """Where not a byte came since it was asked, the connection itself may be dead: all would wait on it in vain."""

    async def handler(asked: Asked) -> None:
        await asked.forever()

    async with H2Server(handler) as upstream:
        await begin_and_leave(transport, upstream)
        for connection in upstream.connections:
            connection.transport.pause_reading()
        with pytest.raises(TimedOut, match=r"timeouts\.headers "):
            await ask(transport, upstream.url, within(0.2, "headers"))
        upstream.handler = hello
        assert await ask(transport, upstream.url) == b"Hello"
        assert len(upstream.connections) == 2


async def begin_and_leave(transport: Http2Transport, upstream: H2Server) -> None:
    """Have a connection made, and used."""
    handler, upstream.handler = upstream.handler, hello
    await ask(transport, upstream.url)
    upstream.handler = handler


# ── What upstreams say of requests and connections ───────────────────────────────────────────────────────────────────


async def test_what_an_upstream_has_not_looked_at_is_asked_again(transport: Http2Transport):
    """REFUSED_STREAM says so (RFC 9113 §8.7); and it is not asked for ever."""

    async def handler(asked: Asked) -> None:
        if len(upstream.asked) < MOST_TRIES:
            asked.refuse()
        else:
            await hello(asked)

    async with H2Server(handler) as upstream:
        assert await ask(transport, upstream.url) == b"Hello"
        assert len(upstream.asked) == MOST_TRIES

        async def refuses(asked: Asked) -> None:
            asked.refuse()

        upstream.handler = refuses
        with pytest.raises(Unreachable, match="takes no more requests"):
            await ask(transport, upstream.url)
        assert len(upstream.asked) == 2 * MOST_TRIES


@pytest.mark.parametrize("max_streams", [0, 100])
async def test_an_upstream_that_is_always_going_away_is_not_knocked_at_for_ever(
    transport: Http2Transport, max_streams: int
):
    """It lets nobody in, or says good-bye with every good morning."""
    async with H2Server(max_streams=max_streams) as upstream:
        upstream.goes_away = bool(max_streams)
        with pytest.raises(Unreachable, match="takes no more requests"):
            await ask(transport, upstream.url)
        assert MOST_TRIES <= len(upstream.connections) <= MOST_TRIES**2  # the good-bye may come when we have asked


async def test_a_request_that_is_reset_is_not_sent_again(transport: Http2Transport):
    """The upstream may have worked, and will charge for it."""

    async def handler(asked: Asked) -> None:
        asked.refuse(ErrorCodes.INTERNAL_ERROR)

    async with H2Server(handler) as upstream:
        with pytest.raises(Unreachable, match="reset the request before it answered"):
            await ask(transport, upstream.url)
        assert len(upstream.asked) == 1
        upstream.handler = hello
        assert await ask(transport, upstream.url) == b"Hello"
        assert len(upstream.connections) == 1


async def test_a_reset_in_the_body_says_how_far_it_came(transport: Http2Transport):
    """A clean reset must never pass for the end of an answer, and concerns nobody else."""

    async def handler(asked: Asked) -> None:
        asked.head()
        await asked.data(b"12345")
        asked.refuse(ErrorCodes.NO_ERROR)

    async with H2Server(handler) as upstream:
        response = await begin(transport, upstream.url)
        with pytest.raises(Unreachable, match="after 5 bytes"):
            await response.read(MOST)
        response.close()


async def test_a_connection_that_goes_away_carries_on_what_it_has_taken(transport: Http2Transport):
    """RFC 9113 §6.8: what is behind the last number is asked elsewhere, at once; what is before it ends as it would."""
    said = asyncio.Event()

    async def handler(asked: Asked) -> None:
        if asked.id > 1 and asked.connection is upstream.connections[0]:
            asked.connection.go_away(1)
            return
        asked.head()
        await asked.data(b"one")
        if asked.connection is upstream.connections[0]:
            await said.wait()
        await asked.data(b"two", ends=True)

    async with H2Server(handler) as upstream:
        taken = await begin(transport, upstream.url)
        assert await ask(transport, upstream.url) == b"onetwo"
        assert [asked.id for asked in upstream.asked] == [1, 3, 1]
        said.set()
        assert await taken.read(MOST) == b"onetwo"
        await upstream.until(lambda: upstream.open == 1)
        assert await ask(transport, upstream.url) == b"onetwo"
        assert len(upstream.connections) == 2


async def test_a_connection_that_goes_away_makes_room_for_another(narrow: Http2Transport):
    """Its last call may take ten minutes: nobody waits for that, though one connection is all there may be."""

    async def handler(asked: Asked) -> None:
        if asked.connection is upstream.connections[0]:
            asked.head()
            asked.connection.go_away(2**31 - 1)
            await asked.forever()
        await hello(asked)

    async with H2Server(handler) as upstream:
        held = await begin(narrow, upstream.url)
        await upstream.until(lambda: upstream.asked)
        while not next(iter(narrow._origins.values())).connections[0].retired:
            await asyncio.sleep(0.001)
        assert await ask(narrow, upstream.url) == b"Hello"
        held.close()


async def test_an_upstream_that_hangs_up_breaks_what_it_carried(transport: Http2Transport):
    """Whoever had no head is told so, whoever had one how far it came; nothing is sent twice."""

    async def handler(asked: Asked) -> None:
        if asked.id == 1:
            asked.head()
            await asked.data(b"12345")
        await asked.forever()

    async with H2Server(handler) as upstream:
        begun = await begin(transport, upstream.url)
        pieces = pieces_of(begun)
        assert await anext(pieces) == b"12345"
        asking = asyncio.ensure_future(ask(transport, upstream.url))
        await upstream.until(lambda: len(upstream.asked) == 2)
        upstream.connections[0].close()
        with pytest.raises(Unreachable, match="after 5 bytes"):
            await anext(pieces)
        with pytest.raises(Unreachable, match="before it answered"):
            await asking
        assert len(upstream.asked) == 2


async def test_idle_connections_that_the_upstream_closed_are_not_missed(transport: Http2Transport):
    """With a word or without one."""
    async with H2Server() as upstream:
        for number in range(6):
            assert await ask(transport, upstream.url) == b"Hello"
            if number % 2:
                upstream.connections[-1].go_away(2**31 - 1)
            upstream.connections[-1].transport.close()
            await upstream.until(lambda: not upstream.open)
        assert len(upstream.asked) == 6


async def test_no_caller_sees_the_race_for_an_idle_connection(transport: Http2Transport):
    """A connection on which nothing else went on, and which dies as it is asked, was dead already."""
    async with H2Server() as upstream:
        assert await ask(transport, upstream.url) == b"Hello"
        upstream.connections[0].transport.close()
        assert await ask(transport, upstream.url) == b"Hello"
        assert len(upstream.asked) == 2


async def test_idle_connections_are_closed(transport: Http2Transport, monkeypatch: pytest.MonkeyPatch):
    """Before the upstream hangs up on them, and with a word."""
    monkeypatch.setattr(http2_connection, "IDLE_S", 0.05)
    async with H2Server() as upstream:
        await ask(transport, upstream.url)
        await upstream.until(lambda: not upstream.open)
        assert upstream.connections[0].left == ErrorCodes.NO_ERROR


async def test_an_old_connection_takes_no_more_calls(transport: Http2Transport):
    """So that an upstream that moves is followed; what it carries is carried to its end."""
    said = asyncio.Event()

    async def handler(asked: Asked) -> None:
        asked.head()
        if asked.connection is upstream.connections[0]:
            await said.wait()
        await asked.data(b"Hello", ends=True)

    async with H2Server(handler) as upstream:
        held = await begin(transport, upstream.url)
        (origin,) = transport._origins.values()
        origin.connections[0].old_at_s = 0.0
        assert await ask(transport, upstream.url) == b"Hello"
        assert len(upstream.connections) == 2
        said.set()
        assert await held.read(MOST) == b"Hello"
        await upstream.until(lambda: upstream.open == 1)


# ── Flow ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_does_not_read_holds_up_nobody_else(transport: Http2Transport):
    """A slow client slows its own upstream down, instead of filling our memory or holding the connection."""
    size = 1_500_000

    async def handler(asked: Asked) -> None:
        await asked.whole.wait()
        await asked.answer(b"x" * size)

    async with H2Server(handler) as upstream:
        slow = await begin(transport, upstream.url)
        await upstream.until(lambda: upstream.asked[0].sent >= STREAM_WINDOW_BYTES)
        for _ in range(2):
            assert len(await ask(transport, upstream.url)) == size
        assert slow.unread <= upstream.asked[0].sent <= STREAM_WINDOW_BYTES + 2 * MOST_UNREAD_BYTES
        assert len(upstream.connections) == 1
        assert len(await slow.read(size)) == size


async def test_a_long_request_is_sent_as_it_is_taken(transport: Http2Transport):
    """No more than the upstream's window, and then as it opens; a short one goes past it on its way."""
    async with H2Server(takes=False) as upstream:
        asking = asyncio.ensure_future(ask(transport, Request(upstream.url, b"x" * 1_000_000, {})))
        await upstream.until(lambda: upstream.asked and len(upstream.asked[0].body) == 65_535)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(upstream.asked[0].body) == 65_535
        await upstream.until(lambda: upstream.asked[0].reset == ErrorCodes.CANCEL)
    async with H2Server(window=10_000) as upstream:
        long = asyncio.ensure_future(ask(transport, Request(upstream.url, b"x" * 1_000_000, {})))
        assert await ask(transport, upstream.url) == b"Hello"
        assert await long == b"Hello"
        assert sorted(len(asked.body) for asked in upstream.asked) == [2, 1_000_000]


async def test_an_early_refusal_ends_the_sending(transport: Http2Transport):
    """The status is heard although the body was not taken, and the connection carries others on."""

    async def handler(asked: Asked) -> None:
        await asked.answer(b"long", 413)

    async with H2Server(handler, takes=False) as upstream:
        response = await begin(transport, Request(upstream.url, b"x" * 1_000_000, {}))
        assert (response.status, await response.read(MOST)) == (413, b"long")
        assert await ask(transport, upstream.url) == b"long"
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("length", [None, len(WHOLE)])
async def test_an_upload_arrives_whole(transport: Http2Transport, length: int | None):
    """With its length where that is known."""
    async with H2Server() as upstream:
        for _ in range(2):
            body = Body(*PIECES, length=length)
            assert await ask(transport, Request(upstream.url, b"", {}, upload=body)) == b"Hello"
        for asked in upstream.asked:
            assert asked.body == WHOLE
            assert asked.headers.get("content-length") == (None if length is None else str(length))
        assert len(upstream.connections) == 1


async def test_an_upload_is_refused_while_its_client_is_silent(transport: Http2Transport):
    """Not with the next piece, which may never come; and the request never looks whole."""

    async def handler(asked: Asked) -> None:
        await asked.answer(b"long", 413)

    async with H2Server(handler) as upstream:
        body = Waiting()
        assert await ask(transport, Request(upstream.url, b"", {}, upload=body)) == b"long"
        await upstream.until(lambda: upstream.asked[0].reset == ErrorCodes.CANCEL)
        assert body.closed
        assert not upstream.asked[0].whole.is_set()


# ── Connections ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_finds_no_room_opens_another_connection_or_waits_in_line():
    """The upstream says how many calls one may carry, the configuration how many there may be."""
    gate = asyncio.Event()

    async def handler(asked: Asked) -> None:
        await gate.wait()
        await hello(asked)

    transport = Http2Transport(most_connections=2)
    async with H2Server(handler, max_streams=3) as upstream:
        asking = [asyncio.ensure_future(ask(transport, upstream.url)) for _ in range(10)]
        await upstream.until(lambda: len(upstream.asked) == 6)
        with pytest.raises(TimedOut, match=r"all 2 connections .*max_connections.* timeouts\.first_token ") as caught:
            await ask(transport, upstream.url, within(0.05, "first_token"))
        assert not caught.value.unhealthy
        leaves = asyncio.ensure_future(ask(transport, upstream.url))
        await asyncio.sleep(0)
        leaves.cancel()
        gate.set()
        assert await asyncio.gather(*asking) == [b"Hello"] * 10
        assert (len(upstream.asked), len(upstream.connections)) == (10, 2)
        await transport.close()


async def test_room_given_to_one_who_leaves_goes_to_the_next(narrow: Http2Transport, monkeypatch: pytest.MonkeyPatch):
    """Also when it was given in the very moment of leaving."""
    gate = asyncio.Event()

    async def handler(asked: Asked) -> None:
        await gate.wait()
        await hello(asked)

    async with H2Server(handler, max_streams=1) as upstream:
        first, second, third = (asyncio.ensure_future(ask(narrow, upstream.url)) for _ in range(3))
        await upstream.until(lambda: upstream.asked)
        (origin,) = narrow._origins.values()
        while len(origin._line) < 2:
            await asyncio.sleep(0)
        roomy = origin.roomy

        def let_in_and_leave(calls: int = 1) -> None:
            roomy(calls)
            second.cancel()

        monkeypatch.setattr(origin, "roomy", let_in_and_leave)
        gate.set()
        assert await first == b"Hello"
        with pytest.raises(asyncio.CancelledError):
            await second
        monkeypatch.setattr(origin, "roomy", roomy)
        async with asyncio.timeout(30):
            assert await third == b"Hello"
        assert len(upstream.asked) == 2


async def test_no_cancellation_leaves_anything_behind(narrow: Http2Transport):
    """200 calls through one connection, most of them cancelled at some moment: then all its room is there again."""

    async def handler(asked: Asked) -> None:
        await asked.whole.wait()
        await asyncio.sleep(0.001 * (asked.id % 7))
        asked.head()
        for _ in range(3):
            await asked.data(b"x")
            await asyncio.sleep(0.001)
        await asked.data(b"", ends=True)

    async with H2Server(handler, max_streams=5) as upstream:

        async def one(number: int) -> None:
            try:
                async with asyncio.timeout(0.001 * (number % 23)):
                    await ask(narrow, upstream.url)
            except TimeoutError:
                pass

        await asyncio.gather(*map(one, range(200)))
        assert await asyncio.gather(*(ask(narrow, upstream.url) for _ in range(20))) == [b"xxx"] * 20
        for connection in next(iter(narrow._origins.values())).connections:
            assert not connection._streams
        await narrow.close()
        await upstream.until(lambda: not upstream.open)


async def test_close_ends_what_is_under_way(transport: Http2Transport):
    """Nobody waits for an answer that cannot come, and nobody begins a new call."""

    async def handler(asked: Asked) -> None:
        await asked.forever()

    async with H2Server(handler, max_streams=1) as upstream:
        transport._most = 1
        asking = [asyncio.ensure_future(ask(transport, upstream.url)) for _ in range(3)]
        await upstream.until(lambda: upstream.asked)
        await transport.close()
        for task in asking:
            with pytest.raises(Unreachable, match="closed its connections"):
                await task
        with pytest.raises(Unreachable, match="closed its connections"):
            await ask(transport, upstream.url)
        await upstream.until(lambda: not upstream.open)


async def test_over_tls_it_is_agreed_on(tmp_path: Path):
    """By ALPN, and with a certificate that is checked."""
    async with H2Server(tls=server_context(tmp_path)) as upstream:
        transport = Http2Transport(ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        assert await ask(transport, upstream.url) == b"Hello"
        assert upstream.asked[0].headers[":scheme"] == "https"
        doubting = Http2Transport()
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await ask(doubting, upstream.url)
        await transport.close()
        await doubting.close()


async def test_it_goes_through_a_proxy(tmp_path: Path):
    """A tunnel, also for what is not encrypted: a proxy that forwards would speak HTTP/1.1 there."""
    async with H2Server(tls=server_context(tmp_path, name="a.example")) as upstream, H2Server() as plain:
        leads = {("a.example", 443): upstream.port, ("b.example", 80): plain.port}
        async with ForwardProxy(leads) as proxy:
            tls = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            transport = Http2Transport(tls, proxy_for=lambda _: proxy.proxy())
            assert await ask(transport, "https://a.example/v1") == b"Hello"
            assert await ask(transport, "http://b.example/v1") == b"Hello"
            assert proxy.asked == ["CONNECT a.example:443 HTTP/1.1", "CONNECT b.example:80 HTTP/1.1"]
            await transport.close()


async def test_an_upstream_that_speaks_no_http2_is_told_of(tmp_path: Path, transport: Http2Transport):
    """With the cure: by ALPN, by what it answers to the preface, and by hanging up."""
    context = server_context(tmp_path)
    context.set_alpn_protocols(["http/1.1"])

    async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with ScriptedUpstream(tls=context) as upstream:
        trusting = Http2Transport(ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        with pytest.raises(Unreachable, match=r"TLS|speaks no HTTP/2"):
            await ask(trusting, f"{upstream.url}/x")
        await trusting.close()
    server = await asyncio.start_server(http1, "127.0.0.1", 0)
    with pytest.raises(Unreachable, match=r"speaks no HTTP/2; `http: native` speaks HTTP/1\.1"):
        await ask(transport, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    server.close()


async def test_a_connection_that_is_not_made_is_told_to_all_who_wait_for_it(transport: Http2Transport):
    """A crowd does not knock one after the other."""
    async with H2Server() as upstream:
        pass
    failures = await asyncio.gather(*(ask(transport, upstream.url) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(failure, Unreachable) and "refuses connections" in failure.message for failure in failures)
    assert len({id(failure) for failure in failures}) == 5


async def test_a_server_that_never_says_its_settings_names_the_clock(transport: Http2Transport):
    """That is part of connecting; and the connection is closed."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    request = Request(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", b"", {})
    with pytest.raises(TimedOut, match=r"timeouts\.connect "):
        await transport.send(request, connect_s=0.1, deadline=within(30.0))
    server.close()


@pytest.mark.parametrize("rubbish", [b"\0" * 100, b"\xff" * 40_000, b"\0\0\4\0\0\0\0\0\1abcd"])
async def test_rubbish_breaks_the_connection_and_not_the_gateway(transport: Http2Transport, rubbish: bytes):
    """What is no frame, too long a frame, or data that nobody asked for."""

    async def handler(asked: Asked) -> None:
        asked.connection.transport.write(rubbish)
        await asked.forever()

    async with H2Server(handler) as upstream:
        with pytest.raises(Unreachable):
            await ask(transport, upstream.url)
        upstream.handler = hello
        assert await ask(transport, upstream.url) == b"Hello"


async def test_a_head_that_is_too_long_is_none(transport: Http2Transport):
    """It would fill our memory."""

    async def handler(asked: Asked) -> None:
        asked.head(200, **{f"x{number}": "y" * 1000 for number in range(80)})
        await asked.forever()

    async with H2Server(handler) as upstream:
        with pytest.raises(Unreachable, match="no HTTP/2"):
            await ask(transport, upstream.url)


async def test_who_waits_in_line_hears_that_nobody_is_there():
    """Each finds out for itself, and at once, when the connection dies and there is no other."""
    narrow = Http2Transport(most_connections=1)

    async def handler(asked: Asked) -> None:
        await asked.forever()

    async with H2Server(handler, max_streams=1) as upstream:
        asking = [asyncio.ensure_future(ask(narrow, upstream.url)) for _ in range(5)]
        await upstream.until(lambda: upstream.asked)
        (origin,) = narrow._origins.values()
        while len(origin._line) < 4:
            await asyncio.sleep(0)
        upstream._server.close()
        upstream.connections[0].close()
        said = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(error, Unreachable) for error in said), said
    await narrow.close()


async def test_what_was_not_read_yet_at_an_answers_end_is_given_back(transport: Http2Transport):
    """Or a connection's window would shrink with each, until nothing more comes."""

    async def handler(asked: Asked) -> None:
        await asked.whole.wait()
        await asked.answer(b"x" * 400_000)

    async with H2Server(handler) as upstream:
        response = await begin(transport, upstream.url)
        while not response.ended:
            await asyncio.sleep(0.01)
        assert len(await response.read(10**7)) == 400_000
        (origin,) = transport._origins.values()
        (connection,) = origin.connections
        window = connection._h2.inbound_flow_control_window
        taken = connection._h2._inbound_flow_control_window_manager._bytes_processed
        assert window + taken == 2**31 - 1
