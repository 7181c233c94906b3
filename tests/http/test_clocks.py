"""Every wait has a limit with a name, and the error names it."""

import pytest

from tests.script import Pings, ScriptedUpstream, Silent, Slow, Stalls
from tests.serving import mock_config, serving

ROUTE = "{deployments: [{target: mock/mock-1, price: {prompt: 1, completion: 2}}]}"
CHAIN = "chain: [{use: retry, attempts: 1}]"


async def ask(upstream_url, timeouts, **fields):
    config = mock_config(upstream_url, CHAIN).replace(ROUTE, f"{{deployments: [mock/mock-1], timeouts: {timeouts}}}")
    async with serving(config) as gateway:
        return await gateway.ask(**fields)


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.mark.parametrize(
    ("step", "timeouts", "stream", "clock"),
    [
        (Silent(), "{first_token: 200ms}", True, "first_token"),
        (Pings(), "{first_token: 200ms}", True, "first_token"),
        (Silent(), "{total: 200ms}", False, "total"),
        (Slow("one two three", first_s=5), "{first_token: 200ms}", True, "first_token"),
        (Slow("one", first_s=5), "{total: 200ms}", False, "total"),
    ],
)
async def test_before_the_first_content_a_clock_is_a_504(upstream, step, timeouts, stream, clock):
    """Comments and pings are not content: an upstream that is alive but says nothing is silent."""
    upstream.will(step)
    answer = await ask(upstream.url, timeouts, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert f"timeouts.{clock}" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("step", "timeouts", "clock"),
    [
        (Stalls("one two three", after_events=3), "{idle: 200ms}", "idle"),
        (Slow("one two three four five six", first_s=0, between_s=0.1), "{total: 400ms}", "total"),
    ],
)
async def test_after_it_the_stream_says_that_it_broke(upstream, step, timeouts, clock):
    """No finish, no [DONE]; the clock by its name."""
    upstream.will(step)
    text = (await ask(upstream.url, timeouts, stream=True)).text
    assert f"timeouts.{clock}" in text and "[DONE]" not in text and '"finish_reason": "stop"' not in text


async def test_slow_but_steady_is_not_silent(upstream):
    """The idle clock starts anew with each piece; whole answers know no first token."""
    upstream.will(Slow("one two three four", first_s=0.1, between_s=0.1))
    assert "[DONE]" in (await ask(upstream.url, "{idle: 300ms, first_token: 300ms}", stream=True)).text
    upstream.will(Slow("one", first_s=0.5))
    assert (await ask(upstream.url, "{first_token: 200ms, idle: 200ms}")).status_code == 200


async def test_a_client_that_will_not_wait_is_not_worked_for(upstream):
    """The SDK says how long it waits (`x-stainless-read-timeout`)."""
    upstream.will(Silent())
    async with serving(mock_config(upstream.url, CHAIN)) as gateway:
        body = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
        answer = await gateway.http.post("/v1/chat/completions", json=body, headers={"x-stainless-read-timeout": "1"})
    assert answer.status_code == 504
