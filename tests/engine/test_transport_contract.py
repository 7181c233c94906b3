"""What every transport promises, whichever it is."""

import asyncio
import json
import random
import ssl
import zlib
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine.http1 import NativeTransport
from gateway.engine.httpx_transport import HttpxTransport
from gateway.engine.outgoing import USER_AGENT
from gateway.engine.transport import Deadline, Response, Transport
from gateway.providers.base import Request
from tests.engine.answers import pieces_of
from tests.engine.certs import server_context
from tests.script import Busy, Cut, Pings, Raw, Resets, ScriptedUpstream, Silent, Slow, Stalls

MOST = 1 << 24


def within(seconds: float, clock: str = "total") -> Deadline:
    return Deadline(asyncio.get_running_loop().time() + seconds, clock)


def chat(upstream: ScriptedUpstream, *, stream: bool = False, **more: Any) -> Request:
    body = json.dumps({"model": "m", "stream": stream, **more}).encode()
    return Request(f"{upstream.url}/chat/completions", body, {"content-type": "application/json"})


async def begin(transport: Transport, request: Request, deadline: Deadline | None = None) -> Response:
    return await transport.send(request, connect_s=30.0, deadline=deadline or within(30.0))


async def ask(transport: Transport, request: Request, deadline: Deadline | None = None) -> bytes:
    response = await begin(transport, request, deadline)
    try:
        return await response.read(MOST)
    finally:
        response.close()


async def test_a_whole_answer_comes_with_its_status_and_headers(transport: Transport, upstream: ScriptedUpstream):
    """Header names are lower-case whatever the upstream writes; the body is the upstream's bytes."""
    upstream.will(Raw(b"HTTP/1.1 201 Made\r\nX-Request-ID: r1\r\nContent-Length: 2\r\n\r\n{}"))
    response = await begin(transport, chat(upstream))
    assert (response.status, response.headers["x-request-id"]) == (201, "r1")
    assert await response.read(MOST) == b"{}"
    response.close()


async def test_the_request_arrives_as_it_was_given(transport: Transport, upstream: ScriptedUpstream):
    """Method, path, query, headers and body; and we ask for no encoding that we would have to undo."""
    request = Request(f"{upstream.origin}/v1beta/m:generateContent?a=%20b", b'{"a":1}', {"x-goog-api-key": "k"})
    await ask(transport, request)
    asked = upstream.requests[0]
    assert (asked.method, asked.path, asked.query, asked.body) == (
        "POST",
        "/v1beta/m:generateContent",
        "a=%20b",
        b'{"a":1}',
    )
    assert asked.headers["host"] == f"127.0.0.1:{upstream.port}"
    assert asked.headers["user-agent"] == USER_AGENT
    assert (asked.headers["accept-encoding"], asked.headers["x-goog-api-key"]) == ("identity", "k")


async def test_a_stream_comes_as_it_is_said(transport: Transport, upstream: ScriptedUpstream):
    """The first pieces are here long before the last is said."""
    upstream.will(Slow("one two three", between_s=0.05))
    response = await begin(transport, chat(upstream, stream=True))
    pieces = [piece async for piece in pieces_of(response)]
    response.close()
    assert len(pieces) > 2
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


async def test_reading_can_go_on_where_an_earlier_reader_stopped(transport: Transport, upstream: ScriptedUpstream):
    """After `[DONE]` the rest of the body is read apart, so that the connection can be kept."""
    upstream.will(Slow("one two", between_s=0.02))
    response = await begin(transport, chat(upstream, stream=True))
    async for _ in pieces_of(response):
        break
    assert (await response.read(MOST)).endswith(b"data: [DONE]\n\n")
    response.close()


async def test_a_connection_whose_answer_was_read_is_used_again(transport: Transport, upstream: ScriptedUpstream):
    """A handshake per call would double the time to the first token."""
    for _ in range(5):
        await ask(transport, chat(upstream))
    await ask(transport, chat(upstream, stream=True))
    await ask(transport, chat(upstream))
    assert (upstream.asked, upstream.accepted) == (7, 1)


async def test_an_error_status_is_an_answer(transport: Transport, upstream: ScriptedUpstream):
    """What it means is the provider's to say."""
    upstream.will(Busy(retry_after=3))
    response = await begin(transport, chat(upstream))
    assert (response.status, response.headers["retry-after"]) == (429, "3")
    response.close()


async def test_a_megabyte_goes_and_comes(transport: Transport, upstream: ScriptedUpstream):
    """Bodies are bounded by the edge and by `read`, not by buffers in between."""
    text = "x" * 1_000_000
    upstream.will(text)
    answer = json.loads(await ask(transport, chat(upstream, filler=text)))
    assert answer["choices"][0]["message"]["content"] == text
    assert upstream.requests[0].json["filler"] == text


async def test_an_answer_longer_than_allowed_is_none(transport: Transport, upstream: ScriptedUpstream):
    """An upstream must not fill our memory."""
    upstream.will("x" * 100_000)
    response = await begin(transport, chat(upstream))
    with pytest.raises(Unreachable, match="longer than 1000 bytes"):
        await response.read(1000)
    response.close()


@pytest.mark.parametrize("after", [0, 10])
async def test_a_reset_before_the_head_is_unreachable(transport: Transport, upstream: ScriptedUpstream, after: int):
    """Nothing was answered, so another deployment may be asked."""
    upstream.will(Resets(after=after))
    with pytest.raises(Unreachable, match="closed the connection before it answered"):
        await ask(transport, chat(upstream))
    assert upstream.asked == 1


async def test_a_reset_in_the_body_says_how_far_it_came(transport: Transport, upstream: ScriptedUpstream):
    """What had come before is still delivered."""
    upstream.will(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"))
    response = await begin(transport, chat(upstream))
    got: list[bytes] = []
    with pytest.raises(Unreachable, match="after 5 bytes"):
        async for piece in pieces_of(response):
            got.append(piece)
    response.close()
    assert b"".join(got) == b"12345"


async def test_a_stream_without_its_last_chunk_is_broken(transport: Transport, upstream: ScriptedUpstream):
    """A clean close in mid-body must never pass for the end of an answer."""
    upstream.will(Cut("one two", after_events=2))
    response = await begin(transport, chat(upstream, stream=True))
    with pytest.raises(Unreachable, match=r"after \d+ bytes"):
        await response.read(MOST)
    response.close()


async def test_a_body_without_a_length_ends_with_its_connection(transport: Transport, upstream: ScriptedUpstream):
    """Old servers end a body that way."""
    upstream.will(Raw(b"HTTP/1.1 200 OK\r\n\r\n{}"))
    assert await ask(transport, chat(upstream)) == b"{}"


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"<html></html>\r\n\r\n"]
)
async def test_garbage_is_unreachable(transport: Transport, upstream: ScriptedUpstream, garbage: bytes):
    """A wrong port answers in its own tongue."""
    upstream.will(Raw(garbage, closes=False))
    with pytest.raises(Unreachable, match="is no HTTP"):
        await ask(transport, chat(upstream))


async def test_nobody_there_is_unreachable(transport: Transport):
    """A refused connection, told without the address."""
    async with ScriptedUpstream() as upstream:
        request = chat(upstream)
    with pytest.raises(Unreachable, match="refuses connections") as caught:
        await ask(transport, request)
    assert "127.0.0.1" not in caught.value.message


async def test_a_name_that_nobody_has_is_unreachable(transport: Transport):
    """The commonest fault in a base_url; `.invalid` never resolves."""
    with pytest.raises(Unreachable, match="cannot be resolved"):
        await ask(transport, Request("http://upstream.invalid/v1", b"", {}))


@pytest.mark.parametrize("clock", ["first_token", "total"])
async def test_silence_before_the_head_times_out(transport: Transport, upstream: ScriptedUpstream, clock: str):
    """The error names the clock, and the upstream sees that we have gone."""
    upstream.will(Silent())
    with pytest.raises(TimedOut, match=rf"timeouts\.{clock} "):
        await ask(transport, chat(upstream), within(0.3, clock))
    await upstream.until(lambda: upstream.gone)


async def test_silence_in_a_stream_times_out(transport: Transport, upstream: ScriptedUpstream):
    """The deadline moved to an earlier time counts from the next wait on."""
    upstream.will(Stalls("one two", after_events=2))
    deadline = within(30.0, "first_token")
    response = await begin(transport, chat(upstream, stream=True), deadline)
    with pytest.raises(TimedOut, match=r"timeouts\.idle "):
        async for _ in pieces_of(response):
            deadline.at_s, deadline.clock = within(0.05).at_s, "idle"
    response.close()
    await upstream.until(lambda: upstream.gone)
    assert upstream.gone[0].events == 2


async def test_a_deadline_moved_on_while_waiting_holds(transport: Transport, upstream: ScriptedUpstream):
    """The timer fires early, sees that it is not time yet, and is armed again."""
    upstream.will(Slow("late", first_s=0.3))
    deadline = within(0.1)
    asking = asyncio.ensure_future(ask(transport, chat(upstream), deadline))
    await upstream.until(lambda: upstream.asked)
    deadline.at_s += 5.0
    assert b"late" in await asking


async def test_comments_do_not_hold_up_a_clock(transport: Transport, upstream: ScriptedUpstream):
    """Pings come as pieces; it is the reader who decides what moves the deadline on."""
    upstream.will(Pings(every_s=0.005))
    deadline = within(30.0, "first_token")
    response = await begin(transport, chat(upstream, stream=True), deadline)
    deadline.at_s = within(0.1).at_s
    with pytest.raises(TimedOut, match="first_token"):
        async for piece in pieces_of(response):
            assert b": ping" in piece
    response.close()


async def test_a_slow_reader_is_no_idle_upstream(transport: Transport, upstream: ScriptedUpstream):
    """What has arrived is delivered, however late it is asked for, unless the whole call's time is over."""
    upstream.will(Slow("one two three four five six", between_s=0.05))
    deadline = within(30.0)
    response = await begin(transport, chat(upstream, stream=True), deadline)
    pieces = pieces_of(response)
    await anext(pieces)
    deadline.at_s, deadline.clock = within(0.01).at_s, "idle"
    (connection,) = upstream.connections
    await upstream.until(lambda: connection.events > 3)
    await asyncio.sleep(0.05)  # and it has arrived
    assert await anext(pieces)
    deadline.at_s = within(30.0).at_s
    assert b"".join([piece async for piece in pieces]).endswith(b"data: [DONE]\n\n")
    response.close()


async def test_an_endless_answer_ends_by_the_total_clock(transport: Transport, upstream: ScriptedUpstream):
    """Also when there is always something to read, so that no wait could time out."""
    size = 8_000_000
    upstream.will(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * size, closes=False))
    deadline, got = within(30.0), 0
    response = await begin(transport, chat(upstream), deadline)
    deadline.at_s = within(0.2).at_s
    with pytest.raises(TimedOut, match="total"):
        async for piece in pieces_of(response):
            got += len(piece)
            await asyncio.sleep(0.05)
    response.close()
    assert got < size


async def test_who_is_cancelled_while_waiting_closes_the_connection(transport: Transport, upstream: ScriptedUpstream):
    """A client that left is not worth another token, and the upstream has to know at once."""
    upstream.will(Silent())
    asking = asyncio.ensure_future(ask(transport, chat(upstream)))
    await upstream.until(lambda: upstream.asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await upstream.until(lambda: upstream.gone)
    assert b"Hello" in await ask(transport, chat(upstream))


async def test_a_stream_that_is_let_go_of_is_closed(transport: Transport, upstream: ScriptedUpstream):
    """Its rest is never read by the next call."""
    upstream.will(Stalls("one two", after_events=2))
    response = await begin(transport, chat(upstream, stream=True))
    await anext(pieces_of(response))
    response.close()
    response.close()
    await upstream.until(lambda: upstream.gone)
    assert b"Hello" in await ask(transport, chat(upstream))
    assert upstream.accepted == 2


async def test_what_says_nothing_more_is_read_to_its_end_and_nobody_waits(
    one_at_a_time: Transport, upstream: ScriptedUpstream
):
    """The connection is used again when the last bytes have come, and by nobody before."""
    upstream.will(Slow("one two three", between_s=0.02), "Hello")
    response = await begin(one_at_a_time, chat(upstream, stream=True))
    await response.more()
    response.drain(60.0)
    assert b"Hello" in await ask(one_at_a_time, chat(upstream))
    assert upstream.accepted == 1


async def test_what_says_nothing_more_is_closed_when_its_end_does_not_come(
    one_at_a_time: Transport, upstream: ScriptedUpstream
):
    """Some servers never end a body; their connection, and its place, are not held for that."""
    upstream.will(Stalls("one two", after_events=2), "Hello")
    response = await begin(one_at_a_time, chat(upstream, stream=True))
    await response.more()
    response.drain(0.05)
    assert b"Hello" in await ask(one_at_a_time, chat(upstream))
    assert upstream.accepted == 2


async def test_no_cancellation_leaves_anything_behind(transport: Transport, upstream: ScriptedUpstream):
    """200 calls, cancelled at random moments of their lives, 20 at a time; httpx's own pool would be dead by now."""
    rng = random.Random(7)
    gate = asyncio.Semaphore(20)

    async def one(number: int) -> None:
        async with gate:
            request = chat(upstream, stream=bool(number % 2))
            try:
                async with asyncio.timeout(rng.random() * 0.02):
                    await ask(transport, request)
            except TimeoutError:
                pass

    for _ in range(200):
        upstream.will(Slow("one two three", first_s=rng.random() * 0.01, between_s=0.002))
    async with asyncio.timeout(60):
        await asyncio.gather(*map(one, range(200)))
        while upstream.script:
            await ask(transport, chat(upstream))
    assert b"Hello" in await ask(transport, chat(upstream))
    await transport.close()
    await upstream.until(lambda: not upstream.connections)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_idle_connections_that_the_upstream_closed_are_not_missed(
    transport: Transport, upstream: ScriptedUpstream
):
    """A server's clock for idle connections is its own."""
    for _ in range(5):
        await ask(transport, chat(upstream))
        upstream.hang_up_idle()
        await upstream.until(lambda: not upstream.connections)
    assert upstream.asked == 5


@pytest.mark.parametrize("wrapped", ["gzip", "zlib", "raw"])
async def test_an_encoding_is_undone_though_none_was_asked_for(
    transport: Transport, upstream: ScriptedUpstream, wrapped: str
):
    """Some proxies pack whatever passes. `deflate` comes with and without zlib's header."""
    bits = {"gzip": 31, "zlib": 15, "raw": -15}[wrapped]
    packer = zlib.compressobj(wbits=bits)
    packed = packer.compress(b'{"a": 1}' * 1000) + packer.flush()
    name = b"gzip" if wrapped == "gzip" else b"deflate"
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: %s\r\ncontent-length: %d\r\n\r\n" % (name, len(packed))
    upstream.will(Raw(head + packed))
    assert await ask(transport, chat(upstream)) == b'{"a": 1}' * 1000


async def test_a_bomb_is_unpacked_only_as_far_as_it_is_read(transport: Transport, upstream: ScriptedUpstream):
    """64 MB in 64 KB: a bounded piece at a time, and an end when it is too long."""
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(bytes(64_000_000)) + packer.flush()
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    upstream.will(Raw(head + packed), Raw(head + packed))
    response = await begin(transport, chat(upstream))
    assert len(await anext(pieces_of(response))) <= 256 * 1024
    response.close()
    with pytest.raises(Unreachable, match="longer"):
        await (await begin(transport, chat(upstream))).read(1_000_000)


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nx-evil: 1"},
        {"x": "a\nb"},
        {"x": "a\0"},
        {"x\r\ny": "a"},
        {"x y": "a"},
        {"": "a"},
        {"x": "…"},
        {"content-length": "0"},
        {"transfer-encoding": "chunked"},
        {"host": "elsewhere"},
    ],
)
async def test_no_header_breaks_out_of_its_line(
    transport: Transport, upstream: ScriptedUpstream, headers: dict[str, str]
):
    """A key with a line break in it is a bug to be told of, and never a second header. Its value is not repeated."""
    with pytest.raises(ValueError, match="header"):
        await ask(transport, Request(upstream.url, b"{}", headers))
    assert upstream.asked == 0


@pytest.mark.parametrize(
    "url", ["ftp://h/", "http:///v1", "http://user:secret@h/v1", "http://h/a b", "http://h/\r\nx", "http://h/é", "h/v1"]
)
async def test_a_url_that_cannot_be_asked_is_told_of(transport: Transport, url: str):
    """Without repeating it: some vendors take the key in the query."""
    with pytest.raises(ValueError, match="URL") as caught:
        await ask(transport, Request(url, b"{}", {}))
    assert "secret" not in str(caught.value)


async def test_a_head_has_no_body(transport: Transport, upstream: ScriptedUpstream):
    """Though it tells the length of one."""
    upstream.will(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", closes=False))
    assert await ask(transport, Request(upstream.url, b"", {}, "HEAD")) == b""
    assert upstream.requests[0].method == "HEAD"
    assert b"Hello" in await ask(transport, chat(upstream))


@pytest.mark.parametrize("status", [204, 304])
async def test_some_statuses_have_no_body(transport: Transport, upstream: ScriptedUpstream, status: int):
    """The connection is used again without waiting for one."""
    upstream.will(Raw(f"HTTP/1.1 {status} Nothing\r\n\r\n".encode(), closes=False))
    assert await ask(transport, chat(upstream)) == b""
    await ask(transport, chat(upstream))
    assert upstream.accepted == 1


async def test_an_answer_that_only_announces_another_is_skipped(transport: Transport, upstream: ScriptedUpstream):
    """`100 Continue` and `103 Early Hints` may come unasked."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    upstream.will(Raw(early + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", closes=False))
    response = await begin(transport, chat(upstream))
    assert (response.status, "link" in response.headers, await response.read(MOST)) == (200, False, b"{}")
    response.close()


@pytest.mark.parametrize("make", [NativeTransport, HttpxTransport])
async def test_who_waits_in_line_too_long_is_told_of_the_line(make: Any, upstream: ScriptedUpstream):
    """It is our limit that holds the call up, so the upstream is not held to be ill; and who leaves gives way."""
    transport = make(most_connections=1)
    upstream.will(Silent())
    first = asyncio.ensure_future(ask(transport, chat(upstream)))
    await upstream.until(lambda: upstream.asked)
    with pytest.raises(TimedOut, match=r"all 1 connections .*max_connections.* timeouts\.first_token ") as caught:
        await ask(transport, chat(upstream), within(0.1, "first_token"))
    assert (caught.value.clock, caught.value.unhealthy) == ("first_token", False)
    leaving, staying = (asyncio.ensure_future(ask(transport, chat(upstream))) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    first.cancel()
    assert b"Hello" in await staying
    assert upstream.accepted == 2
    await transport.close()


@pytest.mark.parametrize("make", [NativeTransport, HttpxTransport])
async def test_a_limit_is_one_origins(make: Any, upstream: ScriptedUpstream):
    """A host that is slow takes no place from another."""
    transport = make(most_connections=1)
    async with ScriptedUpstream() as other:
        upstream.will(Silent())
        first = asyncio.ensure_future(ask(transport, chat(upstream)))
        await upstream.until(lambda: upstream.asked)
        assert b"Hello" in await ask(transport, chat(other))
        first.cancel()
        await asyncio.wait({first})
    await transport.close()


@pytest.mark.parametrize("make", [NativeTransport, HttpxTransport])
async def test_close_sends_the_line_away(make: Any, upstream: ScriptedUpstream):
    """Nobody waits for a place that will never come."""
    transport = make(most_connections=1)
    upstream.will(Silent())
    asking = [asyncio.ensure_future(ask(transport, chat(upstream))) for _ in range(3)]
    await upstream.until(lambda: upstream.asked)
    await transport.close()
    for task in asking:
        with pytest.raises(Unreachable):
            await task


async def test_close_ends_what_is_under_way(transport: Transport, upstream: ScriptedUpstream):
    """Nobody waits for an answer that cannot come, and nobody begins a new call."""
    upstream.will(Silent())
    asking = asyncio.ensure_future(ask(transport, chat(upstream)))
    await upstream.until(lambda: upstream.asked)
    await transport.close()
    with pytest.raises(Unreachable):
        await asking
    with pytest.raises(Unreachable, match="closed its connections"):
        await ask(transport, chat(upstream))
    await upstream.until(lambda: not upstream.connections)


@pytest.mark.parametrize("make", [NativeTransport, HttpxTransport])
async def test_certificates_are_checked(make: Any, tmp_path: Path):
    """A certificate that nobody vouches for is refused; one that our authority signed is not."""
    async with ScriptedUpstream(tls=server_context(tmp_path)) as upstream:
        trusting, doubting = make(ssl.create_default_context(cafile=tmp_path / "ca.pem")), make()
        assert b"Hello" in await ask(trusting, chat(upstream))
        assert (await ask(trusting, chat(upstream, stream=True))).endswith(b"[DONE]\n\n")
        assert upstream.accepted == 1
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await ask(doubting, chat(upstream))
        await trusting.close()
        await doubting.close()


@pytest.mark.parametrize("make", [NativeTransport, HttpxTransport])
async def test_a_certificate_for_another_name_is_refused(make: Any, tmp_path: Path):
    """Whoever signed it."""
    async with ScriptedUpstream(tls=server_context(tmp_path, name="other", address="127.0.0.9")) as upstream:
        trusting = make(ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await ask(trusting, chat(upstream))
        await trusting.close()


async def test_a_connection_that_takes_too_long_names_its_clock(transport: Transport):
    """TLS is part of connecting: here the server takes the connection and never shakes hands."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    request = Request(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", b"", {})
    with pytest.raises(TimedOut, match=r"timeouts\.connect "):
        await transport.send(request, connect_s=0.1, deadline=within(30.0))
    await transport.close()
    server.close()
