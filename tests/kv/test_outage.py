"""Redis that is gone, slow, or back, as those see it who call the gateway: they go on, within 50 ms of waiting."""

import asyncio

import pytest

from gateway.core.resources import Held
from gateway.engine.clock import SystemClock
from gateway.kv.line import Gone, Line
from gateway.settings.complaints import ConfigError
from gateway.settings.load import load
from tests.kv.test_redis import a_meter, store_of, until_back
from tests.proxy import Proxy
from tests.script import ScriptedUpstream
from tests.serving import Serving, mock_config, serving
from tests.valkey import Valkey

KEY = "test-key-0123456789abcdef"
HELD = {"local": "each process counts by itself", "open": "nothing is limited", "closed": "calls that have limits are"}


def config_of(
    upstream: ScriptedUpstream, redis: str, mode: str = "local", limits: str = "requests_per_minute: 3"
) -> str:
    chain = (
        f"chain: [{{use: auth}}, {{use: limits, without_redis: {mode}}}, {{use: cache}}, {{use: cost}}, {{use: retry}}]"
    )
    keys = f"keys: [{{name: team-a, key: {KEY}, limits: {{{limits}}}}}]\nredis: {redis}\n"
    return mock_config(upstream.url, chain, keys)


async def statuses(gateway: Serving, calls: int) -> list[int]:
    return [(await gateway.ask(f"call {n}", KEY)).status_code for n in range(calls)]


def said(caplog: pytest.LogCaptureFixture, policy: str) -> list[str]:
    return [said for record in caplog.records if (said := record.getMessage()).startswith(f"{policy}: Redis")]


@pytest.mark.parametrize(
    ("mode", "meanwhile"),
    [("local", [200, 200, 200, 429, 429, 429]), ("open", [200] * 6), ("closed", [503] * 6)],
)
async def test_without_redis_limits_do_what_is_written(
    mode: str,
    meanwhile: list[int],
    upstream: ScriptedUpstream,
    own_valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the first call on, however it was before; it is said once, and once that Redis is back."""
    async with serving(config_of(upstream, own_valkey.url, mode)) as gateway:
        assert (await gateway.ask("before", KEY)).headers["x-ratelimit-remaining-requests"] == "2"
        own_valkey.stop()
        assert await statuses(gateway, 6) == meanwhile
        for policy in ("limits", "cache"):
            assert len(said(caplog, policy)) == 1
        assert HELD[mode] in said(caplog, "limits")[0]
        assert (await gateway.http.get("/health")).json()["redis"] == "gone"
        own_valkey.start()
        await until_back(gateway.live.gateway.store)
        assert await statuses(gateway, 6) == [200, 200, 200, 429, 429, 429]
        assert len(said(caplog, "limits")) == 2


async def test_a_refusal_for_want_of_redis_may_be_asked_again(upstream: ScriptedUpstream, own_valkey: Valkey) -> None:
    """It is not the client's fault and soon over: its SDK is told when, and no upstream was asked."""
    own_valkey.stop()
    async with serving(config_of(upstream, own_valkey.url, "closed")) as gateway:
        refused = await gateway.ask("Hi", KEY)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "x-should-retry" not in refused.headers
    assert refused.json()["error"]["code"] == "limits_unavailable"
    assert upstream.asked == 0


@pytest.mark.parametrize("mode", HELD)
async def test_what_holds_is_said_at_a_start_without_redis(
    mode: str, upstream: ScriptedUpstream, own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first call, and true of what is configured."""
    own_valkey.stop()
    async with serving(config_of(upstream, own_valkey.url, mode)):
        assert HELD[mode] in said(caplog, "limits")[0]


async def test_a_call_without_limits_needs_no_redis(upstream: ScriptedUpstream, own_valkey: Valkey) -> None:
    """`closed` refuses what should have been counted, and nothing else."""
    own_valkey.stop()
    async with serving(config_of(upstream, own_valkey.url, "closed", limits="")) as gateway:
        assert await statuses(gateway, 2) == [200, 200]


async def test_nothing_is_limited_means_nothing(upstream: ScriptedUpstream, own_valkey: Valkey) -> None:
    """A prompt that is more than a whole limit passes too, as does every call after it."""
    async with serving(config_of(upstream, own_valkey.url, "open", limits="tokens_per_minute: 50")) as gateway:
        assert (await gateway.ask("word " * 500, KEY)).status_code == 429
        own_valkey.stop()
        assert (await gateway.ask("word " * 500, KEY)).status_code == 200


async def test_a_reload_changes_what_holds(upstream: ScriptedUpstream, own_valkey: Valkey) -> None:
    """Also while Redis is gone: who turns it on in the middle of an outage needs it then."""
    own_valkey.stop()
    async with serving(config_of(upstream, own_valkey.url, "closed")) as gateway:
        assert await statuses(gateway, 1) == [503]
        gateway.config.text = config_of(upstream, own_valkey.url, "open")
        await gateway.live.reload()
        assert await statuses(gateway, 6) == [200] * 6


async def test_a_call_waits_once_for_a_redis_that_is_lost(upstream: ScriptedUpstream, proxy: Proxy) -> None:
    """Limits wait in vain; the cache is not asked any more, and whoever comes later waits for nothing."""
    async with serving(config_of(upstream, proxy.url, limits="requests_per_minute: 100")) as gateway:
        await gateway.ask("before", KEY)
        await gateway.settle()
        proxy.asked.clear()
        proxy.withhold(b"")
        began_s = asyncio.get_running_loop().time()
        assert (await gateway.ask("during", KEY)).status_code == 200
        assert asyncio.get_running_loop().time() - began_s < 0.25
        assert await statuses(gateway, 10) == [200] * 10
        await gateway.settle()
        assert (proxy.times_asked(b"EVALSHA"), proxy.times_asked(b"GET")) == (1, 0)
        proxy.withhold(None)
        await until_back(gateway.live.gateway.store)
        assert (await gateway.ask("before", KEY)).headers["x-gateway-cache"] == "hit"


async def test_a_slow_redis_is_gone_until_it_is_quick(
    upstream: ScriptedUpstream, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """One that answers every probe, but no call in time, would else be gone and back, with a wait, every second."""
    async with serving(config_of(upstream, proxy.url, limits="requests_per_minute: 100")) as gateway:
        await gateway.ask("before", KEY)
        proxy.delay_s = 0.2
        assert await statuses(gateway, 3) == [200] * 3
        proxy.asked.clear()
        await asyncio.sleep(3.5)
        assert await statuses(gateway, 3) == [200] * 3
        assert proxy.times_asked(b"gateway:probe") >= 2 and proxy.times_asked(b"EVALSHA") == 0
        assert len(said(caplog, "limits")) == 1
        proxy.delay_s = 0.0
        await until_back(gateway.live.gateway.store)


async def test_a_call_that_has_waited_does_not_wait_again(proxy: Proxy) -> None:
    """Its patience is one; but its haste is no reason to think that Redis is gone."""
    async with store_of(proxy.url, budget_s=2.0) as store:
        await store.put("a", b"four", 60)
        proxy.delay_s = 0.3
        assert await store.get("a", waited_s=2.0) is None
        assert await store.get("a", waited_s=0.001) == b"four"
        assert not store.degraded


async def test_who_has_waited_longest_decides_how_long_a_round_trip_may_take(proxy: Proxy) -> None:
    """Commands that come later travel with it, and must not make it wait for their own time too."""
    line = Line(proxy.url, SystemClock(), 0.8, use="test", lost="nothing works")
    await line.open()
    proxy.delay_s = 0.6
    first = asyncio.ensure_future(line.ask("PING"))
    await asyncio.sleep(0.1)
    second = asyncio.ensure_future(line.ask("PING"))  # 0.5 s in the queue, and then only 0.3 s left
    await asyncio.sleep(0.4)
    third = asyncio.ensure_future(line.ask("PING"))
    assert await first
    for late in (second, third):
        with pytest.raises(Gone):
            await late
    await line.close()


async def test_an_answer_that_is_slow_to_write_holds_up_nobody(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """Limits and the answers that are there stay shared."""
    async with store_of(proxy.url, budget_s=0.5) as store:
        await store.put("a", b"four", 60)
        proxy.withhold(b"large")
        writing = asyncio.ensure_future(store.put("large", bytes(1_000_000), 60))
        while not proxy.times_asked(b"large"):
            await asyncio.sleep(0.005)
        assert await store.get("a") == b"four"
        await writing
        assert [bool(said(caplog, use)) for use in ("limits", "cache", "cache writes")] == [False, False, True]
        held = await store.hold("call", [(a_meter("requests", 5), 1)])
        assert isinstance(held, Held) and held.asks
        assert await store.get("a") == b"four"
        assert not store.degraded


async def test_a_full_redis_is_still_read(own_valkey: Valkey) -> None:
    """It cannot count, and says so at once: nobody waits for it, so what it has kept is found."""
    async with store_of(own_valkey.url, budget_s=2.0) as store:
        await store.put("a", b"four", 60)
        await store._limits.ask("CONFIG", "SET", "maxmemory", "1")
        await store.hold("call", [(a_meter("requests", 5), 1)])
        assert store.degraded
        assert await store.get("a") == b"four"


@pytest.mark.parametrize("mode", ["open", "closed"])
def test_a_mode_for_a_redis_that_is_not_configured_is_refused(mode: str, upstream: ScriptedUpstream) -> None:
    """Whoever wrote it believes that limits are shared."""
    with pytest.raises(ConfigError, match=rf'chain\[1\].without_redis: "{mode}" has no effect, because no `redis:` is'):
        load(config_of(upstream, '""', mode), name="gateway.yaml", environment={})
    assert load(config_of(upstream, '""'), name="gateway.yaml", environment={})
