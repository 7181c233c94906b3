"""A thousand clients that leave, each in its way and at a moment of its own: nothing of theirs may stay behind."""

import asyncio
import json
import random
import statistics
from collections import Counter

import pytest

from gateway.engine.engine import Engine
from gateway.kv.memory import MemoryLimiter
from gateway.middleware.metrics import STREAMS
from tests.lean import Lean
from tests.script import MOST_S, Floods, ScriptedUpstream, Silent, Slow, Stalls
from tests.serving import mock_config, serving

CLIENTS = 1000
AT_ONCE = 50
LATEST_S = 0.15
"""When the last of a batch has left."""
KEPT_BYTES = 4096
"""What a client's kernel keeps of what it does not read."""
WORDS = "a few words that are said one after the other"
STREAMS_BEGUN = (
    Silent(),
    Slow(WORDS, between_s=0.01),
    Slow(WORDS, first_s=0.05),
    Stalls(WORDS, 4),
    Floods(20),
    "Hello",
)
WHOLE = (Silent(), Slow(WORDS, first_s=0.02), Slow(WORDS, first_s=0.1), "Hello")

KEY = "test-key-0123456789abcdef"
TOKENS = 100_000_000
LIMITS = f"{{concurrent: {AT_ONCE}, tokens_per_minute: {TOKENS}}}"
KEYS = f"keys: [{{name: leavers, key: {KEY}, limits: {LIMITS}}}]\n"
CHAIN = "chain: [{use: metrics}, {use: auth}, {use: limits}, {use: cost}, {use: retry}]"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


class Books:
    """What began and what ended, of calls and of holds."""

    def __init__(self, monkeypatch):
        self.begun = Counter()
        self.ended = Counter()
        self.held = {}
        self.settled = Counter()
        self.used = 0
        monkeypatch.setattr(Engine, "begin", self._noting_begin(Engine.begin))
        monkeypatch.setattr(
            "gateway.middleware.metrics._count", lambda _, receipt: self.ended.update([receipt.call_id])
        )
        monkeypatch.setattr(MemoryLimiter, "settle", self._noting_settle(MemoryLimiter.settle))

    def _noting_begin(self, begin):
        def noting(engine, call):
            self.begun[call.id] += 1
            begin(engine, call)

        return noting

    def _noting_settle(self, settle):
        async def noting(limiter, held, tokens):
            self.settled[held.id] += 1
            self.used += {meter.kind: amount for meter, amount in held.asks}["tokens"] if tokens is None else tokens
            await settle(limiter, held, tokens)

        return noting


async def leaves(url, chance, stream):
    """Ask, perhaps not to the end of the question, perhaps reading some of the answer, and leave."""
    client = await Lean.open(url, kept_bytes=KEPT_BYTES)
    if chance.random() < 0.05:
        client.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{"[: chance.randrange(80)]
        )
    else:
        client.send(stream=stream, key=KEY)
    moment_s = chance.uniform(0, LATEST_S)
    try:
        async with asyncio.timeout(moment_s):
            if chance.random() < 0.5:
                await client.read(chance.choice([1, 2000, 60_000]))
            await asyncio.sleep(LATEST_S)
    except TimeoutError:
        pass
    if chance.random() < 0.5:
        client.reset()
    else:
        client.close()


async def test_a_thousand_that_leave_leave_nothing_behind(upstream, monkeypatch):
    """No task, no connection, no place, no token: each call ended once, and the next fifty are served."""
    books, chance = Books(monkeypatch), random.Random(20261)
    async with serving(mock_config(upstream.url, CHAIN, KEYS)) as gateway:
        assert (await gateway.ask(key=KEY)).status_code == 200
        await gateway.settle()
        tasks, streams = asyncio.all_tasks(), STREAMS.n
        for batch in range(CLIENTS // AT_ONCE):
            stream = batch % 3 != 0
            upstream.script.clear()
            upstream.will(*chance.choices(STREAMS_BEGUN if stream else WHOLE, k=AT_ONCE))
            await asyncio.gather(*(leaves(gateway.url, chance, stream) for _ in range(AT_ONCE)))
            await all_gone(tasks)
        upstream.script.clear()

        await nothing_is_left(gateway, upstream, books)
        assert STREAMS.n == streams
        assert len(books.begun) > CLIENTS / 2
        upstream.will(*[Slow("Hello", first_s=0.2)] * AT_ONCE)
        answers = await asyncio.gather(*(gateway.ask(key=KEY, stream=i % 2 == 0) for i in range(AT_ONCE)))
        assert [answer.status_code for answer in answers] == [200] * AT_ONCE
        await all_gone(tasks)
        await nothing_is_left(gateway, upstream, books)


async def all_gone(before):
    """Wait until no task is left but the server's own, the scripted upstream's, and those that were there before."""
    async with asyncio.timeout(MOST_S):
        while left := [task for task in asyncio.all_tasks() - before if is_ours(task)]:
            await asyncio.wait(left)


def is_ours(task):
    return task is not asyncio.current_task() and not task.get_coro().__qualname__.startswith("_Connection.")


async def nothing_is_left(gateway, upstream, books):
    """Check every place where a call that is over could still be."""
    live = gateway.live
    assert not live.gateway.engine.busy
    assert set(books.begun.values()) == set(books.ended.values()) == {1}
    assert books.begun.keys() == books.ended.keys()
    assert set(books.settled.values()) == {1} and not live._process.limiter._live
    assert not live._process.limiter._places
    (window,) = live._process.limiter._windows.values()
    assert window.total == books.used
    assert [health.in_flight for health in live.fleet._health.values()] == [0]
    (origin,) = live._process.transport()._origins.values()
    await upstream.until(lambda: all(connection.asked is None for connection in upstream.connections))
    await upstream.until(lambda: len(upstream.connections) == len(origin.connections) == len(origin._idle))
    assert origin._places == len(origin._idle) and not origin._line


STEPS = {"silent": Silent(), "mid-stream": Stalls(WORDS, 4), "blocked": Floods(50)}


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    ("step", "stream"), [("silent", False), ("silent", True), ("mid-stream", True), ("blocked", True)]
)
async def test_an_upstream_learns_at_once_that_the_client_has_left(upstream, step, stream, how):
    """Within a tenth of a second, or tokens are made, and paid, for nobody."""
    took_s = []
    async with serving(mock_config(upstream.url)) as gateway:
        for _ in range(15):
            asked = upstream.asked
            upstream.will(STEPS[step])
            client = await Lean.open(gateway.url, kept_bytes=KEPT_BYTES)
            client.send(stream=stream)
            await upstream.until(lambda asked=asked: upstream.asked > asked)
            (connection,) = upstream.connections
            await stands_still(connection)
            left_s = asyncio.get_running_loop().time()
            client.reset() if how == "reset" else client.close()
            await upstream.until(lambda: not upstream.connections)
            took_s.append(asyncio.get_running_loop().time() - left_s)
    assert len(upstream.gone) == len(took_s)
    assert statistics.median(took_s) < 0.1, took_s


async def stands_still(connection):
    """Wait until the upstream has written all that it can."""
    sent = -1
    while sent != connection.sent:
        sent = connection.sent
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("kb", [1, 100, 300])
async def test_a_client_that_leaves_is_heard_however_long_its_question(upstream, kb):
    """The server stops reading behind a large body; who asks with a long context leaves like everybody else."""
    upstream.will(Silent())
    async with serving(mock_config(upstream.url)) as gateway, asyncio.timeout(MOST_S):
        body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "x" * kb * 1024}]}).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await upstream.until(lambda: upstream.asked)
        writer.close()
        await upstream.until(lambda: upstream.gone)
