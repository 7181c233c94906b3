"""What a client's connection does that uvicorn's own would do otherwise, and what it must go on doing just like it."""

import asyncio
import contextlib
import gc
import socket
import weakref

import pytest
import uvicorn

from gateway.http.protocol import CLIENT, ClientProtocol, Cycle

GET = b"GET /%b HTTP/1.1\r\nhost: here\r\n\r\n"


async def plain(scope, receive, send):
    """Answer with the path."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def whole(scope, receive, send):
    """Answer with the path, all in one."""
    await scope["extensions"][CLIENT].answer(200, [b"x-a: b"], scope["path"].encode())


@contextlib.asynccontextmanager
async def served(app, **options):
    """Serve `app`; yield how to connect."""
    config = uvicorn.Config(app, http=ClientProtocol, ws="none", lifespan="off", log_config=None, **options)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    with socket.create_server(("127.0.0.1", 0)) as sock:
        serve = asyncio.ensure_future(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield lambda: asyncio.open_connection(*sock.getsockname())
        finally:
            server.should_exit = server.force_exit = True
            await serve


async def said(app, *requests, **options):
    """Return all that a server of `app` says to these bytes, once it has closed the connection."""
    async with served(app, **options) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        for request in requests:
            writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


LAST = b"GET /last HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_no_header_can_smuggle_another_in(value, caplog):
    """Whoever wrote the value: the answer is ours, or a 500."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", value)]})
        await send({"type": "http.response.body", "body": b"hello"})

    answer = await said(app, LAST)
    assert answer.startswith(b"HTTP/1.1 500 ") and b"set-cookie" not in answer and b"hello" not in answer
    assert "control character" in caplog.text


@pytest.mark.parametrize("kind", ["whole", "in pieces"])
async def test_no_line_of_a_head_can_be_two(kind, caplog):
    """Nor of one that is handed over as it goes out."""

    async def app(scope, receive, send):
        cycle, lines = scope["extensions"][CLIENT], [b"x-a: a\r\nset-cookie: b"]
        if kind == "whole":
            await cycle.answer(200, lines, b"hello")
        else:
            await cycle.begin(200, lines)
            await cycle.write(b"hello", more=False)

    answer = await said(app, LAST)
    assert answer.startswith(b"HTTP/1.1 500 ") and b"set-cookie" not in answer and b"hello" not in answer
    assert "control character" in caplog.text


async def test_a_tab_in_a_header_is_none_of_our_business():
    """HTTP allows it."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"a\tb")]})
        await send({"type": "http.response.body", "body": b""})

    assert b"x-a: a\tb\r\n" in await said(app, LAST)


@pytest.mark.parametrize("pieces", [[b"123"], [b"12345"], [b"12", b"345"], [b"12", b"3"]])
async def test_a_body_is_as_long_as_its_head_says_or_the_connection_ends(pieces, caplog):
    """Otherwise what is too much would be taken for the next answer, and what is missing waited for."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": piece is not pieces[-1]})

    body = (await said(app, GET % b"x" + GET % b"y")).partition(b"\r\n\r\n")[2]
    assert len(body) < 4 and "as long as its head says" in caplog.text


async def test_requests_that_come_together_are_answered_in_their_order():
    """Pipelining: rare, and all the worse if answers were exchanged."""
    slow = asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/a":
            await asyncio.sleep(0.05)
            slow.set()
        assert slow.is_set()
        await plain(scope, receive, send)

    answer = await said(app, GET % b"a" + GET % b"b%20c" + LAST)
    bodies = [part.split(b"\r\n\r\n", 1)[1] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"2\r\n/a\r\n0\r\n\r\n", b"4\r\n/b c\r\n0\r\n\r\n", b"5\r\n/last\r\n0\r\n\r\n"]


@pytest.mark.parametrize(
    ("head", "framed"),
    [
        (b"GET /x HTTP/1.0\r\n", b"connection: close"),
        (b"GET /x HTTP/1.1\r\nhost: here\r\nconnection: close\r\n", b"connection: close"),
        (b"HEAD /x HTTP/1.1\r\nhost: here\r\nconnection: close\r\n", b"connection: close"),
    ],
)
async def test_an_answer_is_framed_as_its_request_wants_it(head, framed):
    """A connection that will not be used again is said to be none, and HEAD gets no body."""
    answer, _, body = (await said(plain, head + b"\r\n")).partition(b"\r\n\r\n")
    plainly = {"HEAD": b"", "1.0": b"/x"}
    assert framed in answer
    assert body == next((said for word, said in plainly.items() if word.encode() in head), b"2\r\n/x\r\n0\r\n\r\n")
    assert (b"transfer-encoding" in answer) == body.startswith(b"2\r\n")


@pytest.mark.parametrize(
    ("head", "last", "body"),
    [
        (b"GET /x HTTP/1.0\r\n", b"connection: close", b"/x"),
        (b"GET /x HTTP/1.1\r\nhost: here\r\nconnection: close\r\n", b"connection: close", b"/x"),
        (b"HEAD /x HTTP/1.1\r\nhost: here\r\nconnection: close\r\n", b"connection: close", b""),
    ],
)
async def test_a_whole_answer_says_how_long_it_is(head, last, body):
    """To whomever: even HEAD is told, and the oldest client need not wait for the connection's end."""
    answer, _, came = (await said(whole, head + b"\r\n")).partition(b"\r\n\r\n")
    assert came == body and b"x-a: b\r\n" in answer and b"content-length: 2\r\n" in answer
    assert answer.endswith(last) and b"transfer-encoding" not in answer


async def test_whole_answers_go_out_on_one_connection_in_their_order():
    """It goes on until somebody says otherwise."""
    answer = await said(whole, GET % b"a" + GET % b"bc", LAST)
    parts = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [part.split(b"\r\n\r\n", 1)[1] for part in parts] == [b"/a", b"/bc", b"/last"]
    assert [b"connection: close" in part for part in parts] == [False, False, True]


async def test_who_answers_may_end_the_connection():
    """What came behind is not answered then: nobody would read it."""

    async def app(scope, receive, send):
        scope["extensions"][CLIENT].keep_alive = False
        await whole(scope, receive, send)

    answer = await said(app, GET % b"a" + GET % b"b")
    assert b"connection: close\r\n" in answer and answer.endswith(b"/a")


async def test_a_body_that_is_all_here_is_to_be_had_at_once():
    """Not one of which a part is on its way, or with somebody else."""
    seen = []

    async def app(scope, receive, send):
        cycle = scope["extensions"][CLIENT]
        if scope["path"] == "/late":
            seen.append(cycle.whole_body)
            begun.set()
            while cycle.more_body:
                await asyncio.sleep(0.005)
        seen.append(cycle.whole_body)
        message = await receive()
        seen.append((cycle.whole_body, message["body"], message["more_body"]))
        await whole(scope, receive, send)

    begun = asyncio.Event()
    head = b"POST /%b HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\n"
    async with served(app) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        writer.write(head % b"now" + b"body")
        await reader.readuntil(b"/now")
        assert seen == [b"body", (None, b"body", False)]
        writer.write(head % b"late" + b"bo")
        await begun.wait()
        writer.write(b"dy")
        await reader.readuntil(b"/late")
        assert seen[2:] == [None, b"body", (None, b"body", False)]
        writer.close()


@pytest.mark.parametrize("times_s", [[0.2], [0.01, 0.2], [60, 0.2]])
async def test_who_takes_longer_than_it_may_is_cancelled(times_s, caplog):
    """Whatever it waits for; of several times the one said last counts, be it sooner or later."""
    took_s = []

    async def app(scope, receive, send):
        cycle, loop = scope["extensions"][CLIENT], asyncio.get_running_loop()
        began_s = loop.time()
        for time_s in times_s:
            cycle.watch(time_s)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            took_s.append(loop.time() - began_s)
            assert cycle.is_late
            raise

    assert (await said(app, GET % b"x")).startswith(b"HTTP/1.1 500 ")
    assert took_s[0] > 0.15


async def test_a_time_ends_with_its_answer():
    """Neither the next one, which came with it or later, nor the idle connection has to do with it."""

    async def app(scope, receive, send):
        if scope["path"] == "/quick":
            scope["extensions"][CLIENT].watch(0.1)
        else:
            await asyncio.sleep(0.3)
        await whole(scope, receive, send)

    async with served(app) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        writer.write(GET % b"quick" + GET % b"slow-1")
        await reader.readuntil(b"/slow-1")
        writer.write(GET % b"quick")
        await reader.readuntil(b"/quick")
        await asyncio.sleep(0.3)
        writer.write(GET % b"slow-2")
        await reader.readuntil(b"/slow-2")
        writer.close()


async def test_whoever_asks_to_switch_protocols_is_answered_in_this_one():
    """As HTTP has it: an upgrade is an offer."""
    asks = LAST.replace(b"close", b"upgrade").replace(b"host", b"upgrade: websocket\r\nhost")
    async with served(plain) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        writer.write(asks)
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def echo(scope, receive, send):
    """Answer with the request's body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await scope["extensions"][CLIENT].answer(200, [], body)


OFFER = b"POST /x HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: h2c\r\n"


@pytest.mark.parametrize("at", [len(OFFER) + 8, -1, 1000])
@pytest.mark.parametrize(
    "framed",
    [b"content-length: 4\r\n\r\nbody", b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"],
    ids=["length", "chunks"],
)
async def test_an_offer_to_switch_protocols_takes_no_body_away(framed, at):
    """Java's own client offers HTTP/2 with what it sends, and httptools would leave the body to that."""
    asked = OFFER + framed
    async with served(echo) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        for _ in range(2):
            writer.write(asked[:at])
            await asyncio.sleep(0.02)
            writer.write(asked[at:])
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ") and await reader.readexactly(4) == b"body"
        writer.close()


async def test_what_comes_behind_an_offer_to_switch_is_read():
    """Any number of them: all that came was one packet."""
    some = OFFER + b"content-length: 2\r\n\r\nhi"
    last = LAST.replace(b"close", b"close, upgrade").replace(b"host", b"upgrade: websocket\r\nhost")
    answer = await said(echo, some * 300 + GET % b"x" + last)
    assert answer.count(b"HTTP/1.1 200 ") == 302
    assert answer.count(b"content-length: 2\r\n") == 300


async def test_a_body_that_waits_for_leave_gets_it():
    """`Expect: 100-continue`, as curl sends it with what is large."""

    async def app(scope, receive, send):
        message = await receive()
        while message["more_body"]:
            message = await receive()
        await plain(scope, receive, send)

    async with served(app) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        writer.write(b"POST /up HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert b"/up" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not():
    """The time counts from the last answer's end: neither from its beginning, nor from the connection's."""

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            await asyncio.sleep(0.6)
        await plain(scope, receive, send)

    async with served(app, timeout_keep_alive=0.3) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        for path in (b"first", b"slow", b"last"):
            writer.write(GET % path)
            assert path in await reader.readuntil(b"0\r\n\r\n")
        assert await reader.read() == b""  # closed, by the server
        writer.close()


async def begun(scope, receive, send):
    """Answer without an end, with little time for it."""
    cycle = scope["extensions"][CLIENT]
    cycle.watch(0.2)
    await cycle.begin(200, [])
    while not cycle.disconnected:
        await cycle.write(bytes(100_000))


async def waiting(scope, receive, send):
    """Answer at length, and the next request with little time for it."""
    cycle = scope["extensions"][CLIENT]
    if scope["path"] == "/next":
        cycle.watch(0.2)
    await cycle.answer(200, [], bytes(20_000_000))


async def large(scope, receive, send):
    """Answer at length."""
    await scope["extensions"][CLIENT].answer(200, [], bytes(20_000_000))


@pytest.mark.parametrize("asked", [GET % b"x", LAST], ids=["goes on", "last"])
@pytest.mark.parametrize(("app", "idle_s"), [(begun, 60), (waiting, 60), (large, 0.1)])
async def test_who_does_not_read_is_left_for_good(app, idle_s, asked, monkeypatch):
    """A connection that is only closed stays as long as there is something to be read, with all of that."""
    asked = GET % b"x" + GET % b"next" if app is waiting else asked
    lost, lose = asyncio.Event(), ClientProtocol.connection_lost
    monkeypatch.setattr(ClientProtocol, "connection_lost", lambda self, exc: (lose(self, exc), lost.set()))
    async with served(app, timeout_keep_alive=idle_s) as connect:
        _, writer = await connect()
        writer.transport.pause_reading()
        writer.write(asked)
        async with asyncio.timeout(20):
            await lost.wait()
        writer.transport.abort()


@pytest.mark.parametrize("asked", [GET % b"x", LAST], ids=["goes on", "last"])
async def test_who_reads_slowly_gets_it_all(asked):
    """Longer than an idle connection is left open."""
    async with served(large, timeout_keep_alive=1) as connect, asyncio.timeout(60):
        reader, writer = await connect()
        writer.write(asked)
        head, size = await reader.readuntil(b"\r\n\r\n"), 0
        while size < 20_000_000:
            size += len(await reader.read(160_000))
            await asyncio.sleep(0.025)
        assert b" 200 " in head and await reader.read() == b""
        writer.close()


class Departing:
    """An app that waits until its client has left."""

    def __init__(self, *, late=False):
        self.begun, self.told, self.late = asyncio.Event(), asyncio.Event(), late
        self.count = 0

    async def __call__(self, scope, receive, send):
        """Register, and wait."""
        self.begun.set()
        tells = scope["extensions"][CLIENT].on_departure
        if self.late:
            while (await receive())["type"] != "http.disconnect":
                pass
        tells(self.departed)
        await self.told.wait()

    def departed(self):
        """Be told."""
        self.count += 1
        self.told.set()


@pytest.mark.parametrize("late", [False, True])
async def test_who_answers_is_told_when_the_client_leaves(late):
    """Also who asks only when it is gone already."""
    app = Departing(late=late)
    async with served(app) as connect, asyncio.timeout(60):
        _, writer = await connect()
        writer.write(GET % b"x")
        await app.begun.wait()
        writer.close()
        await app.told.wait()
    assert app.count == 1


async def test_a_client_that_leaves_after_its_answer_disturbs_nobody():
    """What was to be called is forgotten with the call."""
    told = []

    async def app(scope, receive, send):
        scope["extensions"][CLIENT].on_departure(lambda: told.append(scope["path"]))
        await plain(scope, receive, send)

    await said(app, LAST)
    assert not told


@pytest.mark.parametrize("how", ["answered", "fails", "left unanswered", "cut"])
async def test_what_is_to_be_done_at_the_end_is_done_once(how):
    """However it ends, and when it is known what the client was told."""
    statuses = []

    async def app(scope, receive, send):
        cycle = scope["extensions"][CLIENT]
        cycle.ended = lambda: statuses.append(cycle.status)
        match how:
            case "answered":
                await plain(scope, receive, send)
            case "fails":
                raise ZeroDivisionError
            case "cut":
                asyncio.current_task().cancel()
                await asyncio.sleep(60)

    await said(app, LAST)
    assert statuses == [200 if how == "answered" else 500]


async def test_one_request_forgets_for_itself_and_not_for_the_next():
    """Of two that came together the first may still be tidying up when the second has begun."""
    second, tidied, told = Departing(), asyncio.Event(), []

    async def app(scope, receive, send):
        if scope["path"] != "/first":
            await second(scope, receive, send)
            return
        scope["extensions"][CLIENT].on_departure(lambda: told.append("first"))
        await plain(scope, receive, send)
        await second.begun.wait()
        asyncio.current_task().add_done_callback(lambda _: tidied.set())

    async with served(app) as connect, asyncio.timeout(20):
        _, writer = await connect()
        writer.write(GET % b"first" + GET % b"second")
        await tidied.wait()
        writer.close()
        await second.told.wait()
    assert second.count == 1 and not told


async def test_no_request_leaves_work_for_the_garbage_collector():
    """A cycle of references a call would make the collector's pauses part of every call's cost."""
    seen = []

    class Path(str):
        __slots__ = ("__weakref__",)

    async def app(scope, receive, send):
        scope["path"] = path = Path(scope["path"])
        seen.append(weakref.ref(path))
        scope["extensions"][CLIENT].on_departure(lambda: path)
        await plain(scope, receive, send)

    gc.collect()
    gc.disable()
    try:
        async with served(app) as connect, asyncio.timeout(60):
            reader, writer = await connect()
            for _ in range(3):
                writer.write(GET % b"x")
                await reader.readuntil(b"0\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            while any(path() is not None for path in seen):
                await asyncio.sleep(0.01)
            assert len(seen) == 3
    finally:
        gc.enable()


async def test_a_client_that_leaves_takes_its_requests_along():
    """Those as well that came behind and that nobody began to answer."""
    app = Departing()
    gc.collect()
    gc.disable()
    try:
        async with served(app) as connect, asyncio.timeout(60):
            _, writer = await connect()
            writer.write(GET % b"first" + GET % b"second" + GET % b"third")
            await app.begun.wait()
            writer.close()
            await app.told.wait()
            while any(type(thing) in (ClientProtocol, Cycle) for thing in gc.get_objects()):
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
