"""The whole chain with the official SDK in front: keys and tokens, limits, the cache, and what they cost."""

import time

import jwt
import openai
import pytest

from tests.script import Says, ScriptedUpstream
from tests.serving import mock_config, serving

SECRET = "a-shared-secret-of-thirty-two-bytes-or-more"
CHAIN = (
    f"chain: [{{use: auth, jwt: {{secret: {SECRET}, claims: {{models: ''}}}}}},"
    " {use: limits}, {use: cache}, {use: cost}, {use: retry}]"
)
KEYS = """
keys:
  - {name: team-a, key: key-of-team-a-0123456789, limits: {requests_per_minute: 3}}
  - {name: team-b, key: key-of-team-b-0123456789, limits: {tokens_per_minute: 1000}}
"""
ASK = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(upstream):
    async with serving(mock_config(upstream.url, CHAIN, KEYS)) as gateway:
        yield gateway


def token(**claims):
    return jwt.encode({"sub": "ann", "exp": time.time() + 3600, **claims}, SECRET, "HS256")


async def test_a_token_is_as_good_as_a_key(gateway):
    """Supabase's and everybody else's: signature, expiry, and whose it is."""
    answer = await gateway.openai(token()).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello"
    with pytest.raises(openai.AuthenticationError, match="expired"):
        await gateway.openai(token(exp=time.time() - 3600)).chat.completions.create(**ASK)
    with pytest.raises(openai.AuthenticationError):
        await gateway.openai(token()[:-3] + "AAA").chat.completions.create(**ASK)


async def test_the_limit_says_when_to_come_back_and_the_headers_count_down(gateway):
    """What the SDK waits by; its own retries would otherwise hammer."""
    raw = gateway.openai("key-of-team-a-0123456789").chat.completions.with_raw_response
    left = [(await raw.create(**ASK)).headers["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    with pytest.raises(openai.RateLimitError) as caught:
        await raw.create(**ASK)
    headers = caught.value.response.headers
    assert 0 < float(headers["retry-after"]) <= 61 and "x-should-retry" not in headers
    assert caught.value.code == "rate_limit_exceeded"


async def test_what_can_never_pass_is_not_to_be_tried_again(gateway, upstream):
    """A prompt over the whole limit: the SDK would retry a 429 for nothing."""
    body = {**ASK, "messages": [{"role": "user", "content": "word " * 5000}]}
    with pytest.raises(openai.RateLimitError) as caught:
        await gateway.openai("key-of-team-b-0123456789", max_retries=2).chat.completions.create(**body)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in caught.value.response.headers and upstream.asked == 0


async def test_tokens_are_settled_by_what_was_used(gateway, upstream):
    """Held by estimate, then the truth: 500 are held for an answer that uses 20."""
    upstream.will(Says("Hi", prompt_tokens=15, completion_tokens=5))
    raw = gateway.openai("key-of-team-b-0123456789").chat.completions.with_raw_response
    await raw.create(**ASK)
    await gateway.settle()
    headers = (await raw.create(**{**ASK, "max_tokens": 10})).headers
    assert int(headers["x-ratelimit-remaining-tokens"]) > 1000 - 20 - 30


async def test_a_stream_answers_a_whole_call_and_the_reverse(gateway, upstream):
    """From the cache, for nothing; and no other key ever sees it."""
    upstream.will("first", "second")
    mine, other = gateway.openai(token()), gateway.openai(token(sub="bob"))
    stream = await mine.chat.completions.create(**ASK, stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "first"
    await gateway.settle()
    raw = await mine.chat.completions.with_raw_response.create(**ASK)
    assert (raw.headers["x-gateway-cache"], raw.headers["x-gateway-cost"]) == ("hit", "0.000000000")
    assert raw.parse().choices[0].message.content == "first"
    theirs = await other.chat.completions.create(**ASK)
    assert theirs.choices[0].message.content == "second" and upstream.asked == 2


async def test_the_client_may_say_no_cache(gateway, upstream):
    """`no-cache` asks the upstream and keeps the answer; `no-store` keeps nothing."""
    upstream.will("one", "two", "three")
    client = gateway.openai(token())
    said = []
    for control in ("max-age=0", "no-cache", "", "no-store", ""):
        headers = {"cache-control": control} if control else {}
        answer = await client.chat.completions.create(**ASK, extra_headers=headers)
        said.append(answer.choices[0].message.content)
        await gateway.settle()
    assert said == ["one", "two", "two", "three", "two"]


async def test_several_answers_at_once_are_not_kept(gateway, upstream):
    """One of them may have been filtered, and who asks for several wants them to differ."""
    client = gateway.openai(token())
    for _ in range(2):
        await client.chat.completions.create(**ASK, n=2)
        await gateway.settle()
    assert upstream.asked == 2
