"""Clocks of an upstream that never pauses, and of a client that does: neither is mistaken for the other."""

import asyncio
import json

import pytest

from tests.lean import Lean
from tests.script import Floods, Pings, ScriptedUpstream
from tests.serving import serving

CLOCK_S = 0.2
PAUSE_S = 1.0
KEPT_BYTES = 4096
"""What a client's kernel keeps of what it does not read."""
MEGABYTES = 16
"""More than all buffers on the way take."""
PACE = 200_000
"""Tokens a second, of which a pause would cost more than all that has arrived by then is worth."""


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(params=["native", "httpx"])
def http(request):
    return request.param


def config(upstream, http, **timeouts):
    """Return a configuration with one model, `mock`. JSON is YAML."""
    provider = {"kind": "openai", "base_url": upstream.url, "api_key": "k", "http": http}
    route = {"deployments": ["mock/mock-1"], "timeouts": timeouts}
    chain = [{"use": "retry", "attempts": 1}]
    return json.dumps({"providers": {"mock": provider}, "models": {"mock": route}, "chain": chain})


@pytest.mark.parametrize(
    ("clock", "after_events", "timeouts"),
    [
        ("first_token", 1, {"first_token": "200ms"}),
        ("idle", 2, {"idle": "200ms"}),
        ("total", 2, {"total": "200ms"}),
    ],
)
async def test_a_clock_fires_though_comments_come_without_a_pause(upstream, http, clock, after_events, timeouts):
    """There is always something to read, so that no wait ever takes too long."""
    upstream.will(Pings("word " * 10, after_events, every_s=0))
    async with serving(config(upstream, http, **timeouts)) as gateway:
        client, began_s = await Lean.open(gateway.url), asyncio.get_running_loop().time()
        answer = await client.ask(stream=True)
        client.close()
    assert f"timeouts.{clock}".encode() in answer.body and not answer.done
    assert CLOCK_S * 0.9 < answer.heard_s - began_s < CLOCK_S * 3


async def test_a_reader_that_pauses_is_no_silent_upstream(upstream, http):
    """It pauses for five times as long as the upstream may be silent, and then gets all of its answer."""
    upstream.will(Floods(MEGABYTES))
    async with serving(config(upstream, http, idle="200ms", tokens_per_second=PACE)) as gateway:
        client = await Lean.open(gateway.url, kept_bytes=KEPT_BYTES)
        client.send(stream=True)
        await client.head()
        for _ in range(2):
            await client.read(KEPT_BYTES)
            await asyncio.sleep(PAUSE_S)
        end = b""
        while b"[DONE]" not in end and b'"error"' not in end:
            data = await client.read(2**20)
            assert data, end[-1000:]
            end = (end + data)[-1000:]
        client.close()
    assert b"[DONE]" in end, end
