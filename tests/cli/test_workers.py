"""Four workers and one Redis: limits hold exactly, answers are shared. Real processes, counted from outside."""

import asyncio
import re
from collections import Counter

import pytest

from gateway.kv.redis import LEASE_S
from tests.lean import Lean
from tests.script import MOST_S, Fails, Held, ScriptedUpstream
from tests.serving import mock_config, started

CHAIN = "chain: [{use: auth}, {use: limits}, {use: cache}, {use: cost}, {use: retry}]"
KEY = "test-key-0123456789abcdef"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


async def serve(upstream, valkey_url, tmp_path, limits):
    """A gateway of four workers, with one key."""
    keys = f"keys: [{{name: team-a, key: {KEY}, limits: {limits}}}]\nredis: {valkey_url}\n"
    (tmp_path / "gateway.yaml").write_text(mock_config(upstream.url, CHAIN, keys))
    return started(tmp_path, "--workers", "4")


async def ask(url, text):
    """One call over a connection of its own, so that any worker may get it."""
    client = await Lean.open(url)
    answer = await client.ask(text, key=KEY)
    client.close()
    return answer


async def test_of_two_hundred_calls_exactly_the_limit_passes(upstream, valkey_url, tmp_path):
    """Not the limit for each worker, and not one more because they came at the same time."""
    with await serve(upstream, valkey_url, tmp_path, "{requests_per_minute: 60}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 4)
        answers = await asyncio.gather(*(ask(gateway.url, f"call {i}") for i in range(200)))
    assert Counter(answer.status for answer in answers) == {200: 60, 429: 140}
    assert upstream.asked == 60
    refused = next(answer for answer in answers if answer.status == 429)
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "team-a may make 60 requests a minute" in refused.body.decode()


async def test_calls_at_the_same_time_are_counted_over_all_workers(upstream, valkey_url, tmp_path):
    """And every place comes back."""
    go = asyncio.Event()
    upstream.will(*[Held(go)] * 5)
    with await serve(upstream, valkey_url, tmp_path, "{concurrent: 5}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 4)
        statuses = await all_but(5, [status_of(gateway.url, f"slow {i}") for i in range(20)], go)
        assert Counter(statuses) == {200: 5, 429: 15}
        async with asyncio.timeout(LEASE_S / 2):  # they come back behind the answers, and not when a lease is over
            for i in range(10):
                while await status_of(gateway.url, f"later {i}") != 200:
                    await asyncio.sleep(0.05)


async def test_an_answer_is_kept_for_all_workers(upstream, valkey_url, tmp_path):
    """Whichever worker is asked next."""
    with await serve(upstream, valkey_url, tmp_path, "{}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 4)
        first = await ask(gateway.url, f"the same {tmp_path}")
        assert first.headers["x-gateway-cache"] == "miss"
        async with asyncio.timeout(MOST_S):  # it is kept a moment after it was given
            while (await ask(gateway.url, f"the same {tmp_path}")).headers["x-gateway-cache"] != "hit":
                await asyncio.sleep(0.05)
        asked = upstream.asked
        again = [await ask(gateway.url, f"the same {tmp_path}") for _ in range(12)]
    assert {answer.headers["x-gateway-cache"] for answer in again} == {"hit"}
    assert {answer.headers["x-gateway-cost"] for answer in again} == {"0.000000000"}
    assert upstream.asked == asked


async def get(url, path):
    """What some worker says at `path`."""
    client = await Lean.open(url)
    answer = await client.get(path)
    client.close()
    return answer.body.decode()


async def status_of(url, text):
    """The status of one call, at whichever worker."""
    return (await ask(url, text)).status


async def all_but(held, calls, go):
    """Return what becomes of `calls`, of which so many are held by their upstream until all others are over."""
    asking = [asyncio.ensure_future(call) for call in calls]
    async with asyncio.timeout(60):
        while sum(not one.done() for one in asking) > held:
            await asyncio.wait(asking, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
    go.set()
    return await asyncio.gather(*asking)


async def until_all(url, state):
    """Wait until whichever worker is asked says that its one deployment is so."""
    async with asyncio.timeout(60):
        while any([f'"state":"{state}"' not in await get(url, "/health") for _ in range(20)]):
            await asyncio.sleep(0.1)


async def metric(url, name):
    """The values of a metric's series."""
    said = await get(url, "/metrics")
    return [float(value) for value in re.findall(rf"^{name}{{[^}}]*}} (\S+)$", said, re.MULTILINE)]


async def test_a_deployment_that_one_worker_found_ill_rests_in_all(upstream, own_valkey, tmp_path):
    """Its upstream is asked once, not once by each; then one call of all tries it, and all know that it is back."""
    chain = "chain: [{use: metrics}, {use: retry, attempts: 1}]"
    more = f"health: {{failures: 1, rest: 12s}}\nredis: {own_valkey.url}\n"
    (tmp_path / "gateway.yaml").write_text(mock_config(upstream.url, chain, more))
    upstream.will(Fails(500))
    with started(tmp_path, "--workers", "4") as gateway:
        await asyncio.to_thread(gateway.until_ready, 4)
        assert await status_of(gateway.url, "the first") == 502
        await until_all(gateway.url, "resting")
        assert [await status_of(gateway.url, f"call {i}") for i in range(20)] == [503] * 20
        assert upstream.asked == 1
        assert await metric(gateway.url, "gateway_rests_total") == [1]
        assert await metric(gateway.url, "gateway_resting") == [1]

        go = asyncio.Event()
        upstream.will(Held(go, "well again"))
        await until_all(gateway.url, "trying")
        statuses = await all_but(1, [status_of(gateway.url, f"try {i}") for i in range(20)], go)
        assert Counter(statuses) == {200: 1, 503: 19} and upstream.asked == 2
        await until_all(gateway.url, "well")
        assert await metric(gateway.url, "gateway_resting") == [0]
