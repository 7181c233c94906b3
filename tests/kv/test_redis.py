"""What only a shared memory has to promise: many processes, a server that goes and comes, a client that leaves."""

import asyncio
import logging
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.core.resources import Denied, Held, Meter
from gateway.engine.clock import SystemClock
from gateway.kv.line import Gone, Line
from gateway.kv.link import Link
from gateway.kv.redis import ANSWERS, LIMITS, RedisStore
from tests.kv.rigs import BEGIN_S, rig_of, settled
from tests.valkey import Valkey

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def store_of(url: str, **options: float) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, SystemClock(), **options)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def a_meter(kind: str, limit: int) -> Meter:
    return Meter(f"key:{uuid.uuid4().hex[:12]}", kind, limit)


def hammer(url: str, meter: Meter, calls: int, lease_s: float = 30.0) -> "subprocess.Popen[bytes]":
    told = [url, meter.subject, meter.kind, f"{meter.limit}", f"{calls}", f"{lease_s}"]
    return subprocess.Popen([sys.executable, "-m", "tests.kv.hammer", *told], cwd=ROOT, stdout=subprocess.PIPE)


async def eventually(holds, within_s: float = 30.0) -> None:
    until_s = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < until_s, "not in time"
        await asyncio.sleep(0.02)


async def until_back(store: RedisStore) -> None:
    async def back() -> bool:
        return not store.degraded

    await eventually(back)


async def cut_off(link: Link, valkey: Valkey) -> None:
    """Have the server close a connection, as Redis and whatever stands before it may where nobody uses it."""
    async with Redis.from_url(valkey.url) as other:
        await other.client_kill_filter(_type="normal", skipme=True)

    async def closed() -> bool:
        return not link.is_open

    await eventually(closed)


async def leave_while_asked(asking: Coroutine[Any, Any, object], valkey: Valkey) -> None:
    """Cancel what asks the server while the server stands still."""
    valkey.send_signal(signal.SIGSTOP)
    leaving = asyncio.ensure_future(asking)
    await asyncio.sleep(0.1)
    leaving.cancel()
    valkey.send_signal(signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await leaving


def said_of_limits(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [said for record in caplog.records if (said := record.getMessage()).startswith("limits: Redis")]


def test_four_processes_let_exactly_the_limit_pass(valkey_url: str) -> None:
    """A limit that each worker counts by itself is four limits."""
    meter = a_meter("requests", 100)
    workers = [hammer(valkey_url, meter, 200) for _ in range(4)]
    said = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [degraded for _, degraded in said] == [b"False"] * 4
    assert sum(int(passed) for passed, _ in said) == 100


async def test_the_places_of_a_killed_process_come_back(valkey_url: str) -> None:
    """Its calls are over, whether or not anybody was left to say so; those of the living go on."""
    meter = a_meter("concurrent", 4)
    worker = hammer(valkey_url, meter, 3, lease_s=3.0)
    try:
        assert worker.stdout is not None
        assert (await asyncio.to_thread(worker.stdout.readline)).split() == [b"3", b"False"]
        async with store_of(valkey_url, budget_s=2.0, lease_s=3.0) as store:
            assert isinstance(await store.hold("mine", [(meter, 1)]), Held)
            await asyncio.sleep(4.0)  # longer than a lease: the living renew theirs
            assert isinstance(await store.hold("too-many", [(meter, 1)]), Denied)
            worker.kill()

            async def free() -> bool:
                return (await store.standings([meter]))[0].remaining == 3

            await eventually(free)
    finally:
        worker.kill()
        worker.communicate()


async def test_calls_go_on_while_redis_is_gone(own_valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Limits still hold, counted here; and the log says it once each way, not once a call."""
    caplog.set_level(logging.INFO, "gateway")
    meter = a_meter("requests", 5)
    async with store_of(own_valkey.url) as store:
        assert isinstance(await store.hold("before", [(meter, 1)]), Held)
        own_valkey.stop()
        passed = [await store.hold(f"during-{n}", [(meter, 1)]) for n in range(50)]
        assert sum(isinstance(one, Held) for one in passed) == 5
        assert store.degraded and not await store.ping()
        assert len(said_of_limits(caplog)) == 1
        own_valkey.start()
        await until_back(store)
        passed = [await store.hold(f"after-{n}", [(meter, 1)]) for n in range(50)]
        assert sum(isinstance(one, Held) for one in passed) == 5
        assert len(said_of_limits(caplog)) == 2


async def test_a_redis_that_answers_nothing_holds_up_nobody(own_valkey: Valkey) -> None:
    """The first calls wait for their budget; then nobody waits until it is back."""
    meter = a_meter("requests", 1_000)
    async with store_of(own_valkey.url, budget_s=0.1) as store:
        own_valkey.send_signal(signal.SIGSTOP)
        began_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(store.hold(f"first-{n}", [(meter, 1)]) for n in range(100)))
        assert asyncio.get_running_loop().time() - began_s < 0.4
        began_s = asyncio.get_running_loop().time()
        for n in range(500):
            assert isinstance(await store.hold(f"next-{n}", [(meter, 1)]), Held)
        assert asyncio.get_running_loop().time() - began_s < 0.1
        own_valkey.send_signal(signal.SIGCONT)
        await eventually(store.ping)


async def test_a_busy_process_does_not_take_redis_for_gone(valkey_url: str) -> None:
    """An answer that waits in our own socket is no reason to count alone."""
    meter = a_meter("requests", 1_000)
    async with store_of(valkey_url, budget_s=0.05) as store:
        for n in range(5):
            asked = asyncio.ensure_future(store.hold(f"call-{n}", [(meter, 1)]))
            for _ in range(5):
                await asyncio.sleep(0)
            time.sleep(0.08)
            await asked
        assert not store.degraded


async def test_a_process_that_is_always_busy_does_not_either(valkey_url: str) -> None:
    """Of two hundred calls that wait for each other's round trips, none waits for Redis: they wait for us."""
    meter = a_meter("requests", 1_000)

    async def busy() -> None:
        while True:
            time.sleep(0.015)
            await asyncio.sleep(0)

    async with store_of(valkey_url, budget_s=0.05) as store:
        working = asyncio.ensure_future(busy())
        asked: list[asyncio.Task[Held | Denied]] = []
        for n in range(200):
            asked.append(asyncio.ensure_future(store.hold(f"call-{n}", [(meter, 1)])))
            await asyncio.sleep(0)
        held = await asyncio.gather(*asked)
        working.cancel()
        assert not store.degraded
        assert sorted(one.standings[0].remaining for one in held) == list(range(800, 1_000))


async def test_a_call_held_here_is_settled_here(own_valkey: Valkey) -> None:
    """What began while Redis was gone ends after it is back, and the other way round."""
    places = a_meter("concurrent", 1)
    async with store_of(own_valkey.url, lease_s=3.0) as store:
        before = await store.hold("before", [(places, 1)])
        own_valkey.stop()
        during = await store.hold("during", [(places, 1)])
        assert isinstance(before, Held) and isinstance(during, Held)
        await settled(store, before, None)
        own_valkey.start()
        await eventually(store.ping)
        assert isinstance(await store.hold("after", [(places, 1)]), Held)
        await settled(store, during, None)
        assert isinstance(await store.hold("too-many", [(places, 1)]), Denied)
        own_valkey.stop()
        assert isinstance(await store.hold("gone-again", [(places, 1)]), Held)


async def test_places_are_taken_anew_where_redis_forgot_them(own_valkey: Valkey) -> None:
    """A restart of Redis does not let twice as many calls run at once."""
    places = a_meter("concurrent", 1)
    async with store_of(own_valkey.url, lease_s=1.5) as store:
        await store.hold("running", [(places, 1)])
        own_valkey.stop()
        own_valkey.start()
        await eventually(store.ping)

        async def taken() -> bool:
            return (await store.standings([places]))[0].remaining == 0

        await eventually(taken)
        assert isinstance(await store.hold("too-many", [(places, 1)]), Denied)


async def test_a_script_that_redis_forgot_is_sent_again(valkey_url: str) -> None:
    """`SCRIPT FLUSH`, or a fail-over to a server that never saw it."""
    meter = a_meter("requests", 2)
    async with store_of(valkey_url, budget_s=2.0) as store:
        assert isinstance(await store.hold("one", [(meter, 1)]), Held)
        await store._limits.ask("SCRIPT", "FLUSH")
        assert isinstance(await store.hold("two", [(meter, 1)]), Held)
        assert isinstance(await store.hold("three", [(meter, 1)]), Denied)
        assert not store.degraded


async def test_a_client_that_leaves_while_we_ask_holds_nothing(own_valkey: Valkey) -> None:
    """Its call is never settled, because it never learned that it was held."""
    places, tokens = a_meter("concurrent", 1), a_meter("tokens", 100)
    async with store_of(own_valkey.url, budget_s=5.0) as store:
        assert isinstance(await store.hold("before", [(a_meter("requests", 1), 1)]), Held)  # Redis knows the script now
        await leave_while_asked(store.hold("leaving", [(places, 1), (tokens, 100)]), own_valkey)

        async def free() -> bool:
            return [standing.remaining for standing in await store.standings([places, tokens])] == [1, 100]

        await eventually(free)


async def test_a_client_that_leaves_while_the_script_is_unknown_harms_nobody(own_valkey: Valkey) -> None:
    """The script is sent again only for those who still wait."""
    async with store_of(own_valkey.url, budget_s=5.0) as store:
        own_valkey.send_signal(signal.SIGSTOP)
        leaving = asyncio.ensure_future(store.hold("leaving", [(a_meter("requests", 1), 1)]))
        await asyncio.sleep(0.1)
        leaving.cancel()
        own_valkey.send_signal(signal.SIGCONT)
        assert await store.ping()
        assert not store.degraded


async def test_a_redis_that_takes_no_writes_is_gone(own_valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """A full one, or a replica: it answers, but it cannot count."""
    meter = a_meter("requests", 5)
    async with store_of(own_valkey.url) as store:
        await store._limits.ask("CONFIG", "SET", "maxmemory", "1")
        passed = await asyncio.gather(*(store.hold(f"call-{n}", [(meter, 1)]) for n in range(10)))
        assert sum(isinstance(one, Held) for one in passed) == 5
        assert store.degraded
        await asyncio.sleep(1.2)
        assert store.degraded
        assert len(said_of_limits(caplog)) == 1


async def test_a_gateway_starts_without_redis(own_valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """It says so, counts alone, and joins the others as soon as Redis is there."""
    own_valkey.stop()
    async with store_of(own_valkey.url) as store:
        assert store.degraded
        assert re.match(r"limits: Redis is gone \(.+\), so each process counts by itself", said_of_limits(caplog)[0])
        own_valkey.start()
        await eventually(store.ping)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost:6379",
        "redis://localhost:port",
        "redis://user:s3cr/et@localhost:6379",
        "redis://localhost:6379/0?no_such_option=1",
        "",
    ],
)
def test_a_url_that_is_none_stops_the_start(url: str) -> None:
    """Limits that quietly are not there are worse than no gateway; and no password is quoted."""
    with pytest.raises(ValueError, match=r"expected redis://host:6379/0") as caught:
        RedisStore(url, SystemClock())
    assert "s3cr" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_answers_are_shared_and_have_an_end(valkey_url: str) -> None:
    key, answer = uuid.uuid4().hex, bytes(range(256))
    async with store_of(valkey_url, budget_s=2.0) as store, store_of(valkey_url, budget_s=2.0) as other:
        assert await store.get(key) is None
        await store.put(key, answer, 2.0)
        assert await other.get(key) == answer
        assert 0 < await store._answers.ask("PTTL", ANSWERS + key) <= 2000

        async def over() -> bool:
            return await store.get(key) is None

        await eventually(over)


async def test_answers_are_a_miss_while_redis_is_gone(own_valkey: Valkey) -> None:
    async with store_of(own_valkey.url) as store:
        await store.put("a", b"four", 60)
        own_valkey.stop()
        assert await store.get("a") is None
        await store.put("a", b"four", 60)
        assert store.degraded


async def test_nothing_stays_in_redis_for_ever(valkey_url: str) -> None:
    """Every key that a call writes has an end."""
    meters = [a_meter(kind, 100) for kind in ("requests", "tokens", "concurrent")]
    async with store_of(valkey_url, budget_s=2.0) as store:
        held = await store.hold("call", [(meter, 1) for meter in meters])
        assert isinstance(held, Held)
        for meter in meters:
            assert 0 < await store._limits.ask("PTTL", LIMITS + meter.id) <= 62_000
        await settled(store, held, 50)
        assert 0 < await store._limits.ask("PTTL", LIMITS + meters[1].id) <= 62_000
        assert await store._limits.ask("EXISTS", LIMITS + meters[2].id) == 0


async def test_a_clock_that_goes_back_forgets_nothing(valkey_url: str) -> None:
    """What was used counts as used now: for one window too much may be refused, and never too much let pass."""
    async with rig_of("redis", valkey_url) as rig:
        meter = rig.meter("tokens", 100)
        await rig.hold((meter, 80))
        await rig.to(BEGIN_S - 500)
        assert isinstance(await rig.hold((meter, 21)), Denied)
        assert isinstance(await rig.hold((meter, 20)), Held)
        await rig.to(BEGIN_S - 500 + 61)
        assert isinstance(await rig.hold((meter, 100)), Held)


async def test_commands_asked_for_together_travel_together(own_valkey: Valkey) -> None:
    """A thousand calls need no thousand connections: each line has its one."""
    async with store_of(own_valkey.url, budget_s=5.0) as store:
        meter = a_meter("requests", 10_000)
        held = await asyncio.gather(*(store.hold(f"call-{n}", [(meter, 1)]) for n in range(1_000)))
        assert sorted(one.standings[0].remaining for one in held) == list(range(9_000, 10_000))
        assert len((await store._limits.ask("CLIENT", "LIST")).splitlines()) == len(store._lines)


async def test_a_closed_store_leaves_nobody_waiting(own_valkey: Valkey) -> None:
    store = RedisStore(own_valkey.url, SystemClock(), budget_s=30.0)
    await store.start()
    own_valkey.send_signal(signal.SIGSTOP)
    waiting = asyncio.ensure_future(store._limits.ask("PING"))
    await asyncio.sleep(0.05)
    await store.close()
    with pytest.raises(Gone):
        await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize("before", ["asked", "lost"])
async def test_a_line_that_was_closed_can_be_opened_again(own_valkey: Valkey, before: str) -> None:
    """Whatever was under way then, and whether Redis was gone: nothing of it stays."""
    line = Line(own_valkey.url, SystemClock(), 20.0, use="test", lost="nothing works")
    await line.open()
    own_valkey.send_signal(signal.SIGSTOP)
    asking = asyncio.ensure_future(line.ask("PING"))
    await asyncio.sleep(0.05)
    if before == "lost":
        line.lose(TimeoutError())
    await line.close()
    with pytest.raises(Gone):
        await asyncio.wait_for(asking, 20)
    own_valkey.send_signal(signal.SIGCONT)
    await line.open()
    assert await asyncio.wait_for(line.ask("PING"), 20) == b"PONG"
    await line.close()


async def test_a_closed_line_is_lost_to_nobody(valkey_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """At a stop one line may still wait in vain when another is closed: nothing is said, or tried, of that."""
    line = Line(valkey_url, SystemClock(), 20.0, use="test", lost="nothing works")
    await line.open()
    await line.close()
    line.lose(TimeoutError())
    assert not line.gone and not caplog.text


async def test_what_cannot_be_sent_is_its_callers_own_error(own_valkey):
    """Half of a character in a name: whoever asks at the same time, or later, is answered."""
    async with store_of(own_valkey.url) as store:
        good, bad = a_meter("requests", 10), Meter("user:\ud800", "requests", 10)
        asking = [store.hold("a", [(bad, 1)]), store.hold("b", [(good, 1)])]
        failed, held = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(failed, UnicodeEncodeError) and isinstance(held, Held)
        assert isinstance(await store.hold("c", [(good, 1)]), Held)
