"""Four workers and one Redis: limits hold exactly, answers are shared. Real processes, counted from outside."""

import asyncio
from collections import Counter

import httpx
import pytest

from tests.script import ScriptedUpstream, Slow
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
    body = {"model": "mock", "messages": [{"role": "user", "content": text}]}
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        headers = {"authorization": f"Bearer {KEY}"}
        return await client.post(f"{url}/v1/chat/completions", json=body, headers=headers)


async def test_of_two_hundred_calls_exactly_the_limit_passes(upstream, valkey_url, tmp_path):
    """Not the limit for each worker, and not one more because they came at the same time."""
    with await serve(upstream, valkey_url, tmp_path, "{requests_per_minute: 60}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 4)
        answers = await asyncio.gather(*(ask(gateway.url, f"call {i}") for i in range(200)))
    assert Counter(answer.status_code for answer in answers) == {200: 60, 429: 140}
    assert upstream.asked == 60
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "team-a may make 60 requests a minute" in refused.json()["error"]["message"]


async def test_calls_at_the_same_time_are_counted_over_all_workers(upstream, valkey_url, tmp_path):
    """And every place comes back."""
    upstream.will(*[Slow("done", first_s=1.5)] * 5)
    with await serve(upstream, valkey_url, tmp_path, "{concurrent: 5}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 4)
        answers = await asyncio.gather(*(ask(gateway.url, f"slow {i}") for i in range(20)))
        assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 15}
        for i in range(10):
            assert (await ask(gateway.url, f"later {i}")).status_code == 200


async def test_an_answer_is_kept_for_all_workers(upstream, valkey_url, tmp_path):
    """Whichever worker is asked next."""
    with await serve(upstream, valkey_url, tmp_path, "{}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 4)
        first = await ask(gateway.url, f"the same {tmp_path}")
        assert first.headers["x-gateway-cache"] == "miss"
        again = [await ask(gateway.url, f"the same {tmp_path}") for _ in range(12)]
    assert {answer.headers["x-gateway-cache"] for answer in again} == {"hit"}
    assert {answer.headers["x-gateway-cost"] for answer in again} == {"0.000000000"}
    assert upstream.asked == 1
