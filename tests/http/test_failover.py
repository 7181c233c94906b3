"""Sixteen ways in which a provider fails, as the field's failover suites have them, each through the official SDK.

Every one is met by the same mechanism: clocks, a budget of attempts, deployments that rest, and the truth.
"""

import asyncio
import contextlib
import json

import openai
import pytest

from tests.script import Busy, Cut, Fails, InBand, Raw, Resets, Says, ScriptedUpstream, Silent, Slow, Stalls
from tests.serving import serving

QUESTION = [{"role": "user", "content": "Hi"}]


def config(primary, spare, **route):
    """A route with two deployments at different prices, and a model with a larger context."""
    said = {
        "deployments": [
            {"target": "primary/one", "price": {"prompt": 1, "completion": 1}},
            {"target": "spare/two", "price": {"prompt": 10, "completion": 10}},
        ],
        "context_fallbacks": ["large"],
        "timeouts": {"headers": "400ms", "first_token": "400ms", "idle": "400ms", "total": "20s"},
        **route,
    }
    providers = {
        name: {"kind": "openai", "base_url": upstream.url, "api_key": "k"}
        for name, upstream in (("primary", primary), ("spare", spare))
    }
    return json.dumps(
        {
            "providers": providers,
            "models": {"mock": said, "alone": {**said, "deployments": ["primary/one"]}, "large": "spare/large"},
            "health": {"failures": 5, "rest": "300ms", "longest_rest": "1s"},
            "chain": [{"use": "metrics"}, {"use": "cost"}, {"use": "retry", "first_wait": "20ms"}],
        }
    )


@contextlib.asynccontextmanager
async def failing(**route):
    """Yield a gateway, the upstream that will fail, and the one that stands in."""
    async with (
        ScriptedUpstream() as primary,
        ScriptedUpstream() as spare,
        serving(config(primary, spare, **route)) as gateway,
    ):
        yield gateway, primary, spare


async def ask(gateway, model="mock", **more):
    """Ask as an application does, and return the raw answer with what was said."""
    return await gateway.openai().chat.completions.with_raw_response.create(model=model, messages=QUESTION, **more)


async def text_of(gateway, model="mock", **more):
    """Return what a stream said, and why it finished."""
    stream = await gateway.openai().chat.completions.create(model=model, messages=QUESTION, stream=True, **more)
    text, finish = "", None
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish


async def test_1_a_429_with_retry_after_is_honoured_or_another_is_asked():
    """Alone, the upstream gets the patience it asked for; where another is, nobody waits."""
    async with failing() as (gateway, primary, spare):
        primary.will(Busy(retry_after=1), "late")
        spare.will("at once")
        answer = await ask(gateway)
        assert answer.parse().choices[0].message.content == "at once" and primary.asked == 1
        began = asyncio.get_running_loop().time()
        answer = await ask(gateway, "alone")
        assert answer.parse().choices[0].message.content == "late"
        assert asyncio.get_running_loop().time() - began > 0.8, "what was asked of one call is asked of all"


async def test_2_a_429_for_ever_is_told_and_not_hammered():
    """A handful of attempts, whoever asks again; then the upstream is left in peace and callers are told when."""
    async with failing() as (gateway, primary, _):
        primary.will(*[Busy()] * 100)
        statuses: list[int] = []
        told: list[bool] = []
        for _ in range(20):
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(gateway, "alone")
            statuses.append(caught.value.status_code)
            told.append("retry-after" in caught.value.response.headers)
            await asyncio.sleep(0.05)  # some come when it may be tried again
        assert statuses[0] == 429 and set(statuses) <= {429, 503}
        assert all(told[told.index(True) :]), "whoever is let through to try it is told as well"
        assert primary.asked <= 15, "twenty calls of three attempts each would be sixty"


@pytest.mark.parametrize("stream", [False, True])
async def test_3_one_500_is_not_seen(stream):
    """Somebody else answers."""
    async with failing() as (gateway, primary, spare):
        primary.will(Fails(500))
        spare.will("fine")
        if stream:
            assert await text_of(gateway) == ("fine", "stop")
        else:
            assert (await ask(gateway)).parse().choices[0].message.content == "fine"


async def test_4_a_503_for_ever_is_answered_by_another_and_then_not_asked_any_more():
    """The first calls find out; the others need not."""
    async with failing() as (gateway, primary, _):
        primary.will(*[Fails(503)] * 100)
        answers = [await ask(gateway) for _ in range(30)]
        assert all(answer.headers["x-gateway-provider"] == "spare" for answer in answers)
        assert primary.asked <= 10
        assert answers[-1].headers["x-gateway-attempts"] == "1"


@pytest.mark.parametrize("stream", [False, True])
async def test_5_a_reset_before_the_head_is_not_seen(stream):
    """Nothing was shown, so nothing was promised."""
    async with failing() as (gateway, primary, spare):
        primary.will(Resets(after=0))
        spare.will("fine")
        assert (await gateway.ask(stream=stream)).status_code == 200 and spare.asked == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_6_no_response_at_all_falls_over_and_is_not_asked_again(stream):
    """Silence repeats itself; another deployment need not."""
    async with failing() as (gateway, primary, spare):
        primary.will(*[Silent()] * 3)
        spare.will(Fails(500), "fine")
        answer = await gateway.ask(stream=stream)
        assert answer.status_code == 200 and (primary.asked, spare.asked) == (1, 2)


async def test_7_a_first_token_that_is_far_too_late_falls_over():
    """Its head was there at once, and pings too, perhaps; but not a word."""
    async with failing() as (gateway, primary, spare):
        primary.will(Slow("too late", first_s=20))
        spare.will("in time")
        assert await text_of(gateway) == ("in time", "stop")


TWO_THIRDS = Cut("one two three four five six", after_events=5)


async def test_8_a_stream_cut_after_two_thirds_is_told_or_carried_on():
    """As the route declares it; never does it just end."""
    async with failing() as (gateway, primary, _):
        primary.will(TWO_THIRDS)
        with pytest.raises(openai.APIError):
            await text_of(gateway)
    async with failing(midstream="continue") as (gateway, primary, spare):
        primary.will(TWO_THIRDS)
        spare.will("five six")
        assert await text_of(gateway) == ("one two three four five six", "stop")
    async with failing(midstream="buffer") as (gateway, primary, spare):
        primary.will(TWO_THIRDS)
        spare.will("another answer")
        assert await text_of(gateway) == ("another answer", "stop")


async def test_9_a_stream_that_stalls_is_told_or_carried_on():
    """The idle clock ends the silence."""
    stalls = Stalls("one two three four", after_events=3)
    async with failing() as (gateway, primary, _):
        primary.will(stalls)
        with pytest.raises(openai.APIError, match="idle"):
            await text_of(gateway)
        await primary.until(lambda: len(primary.gone) == 1)
    async with failing(midstream="continue") as (gateway, primary, spare):
        primary.will(stalls)
        spare.will("three four")
        assert await text_of(gateway) == ("one two three four", "stop")


async def test_10_a_malformed_event_is_passed_over_and_the_next_call_is_as_ever():
    """The rest is whole, so it is an answer; a comment says what is missing."""
    async with failing() as (gateway, primary, _):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        begun = '{"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
        said = f'data: {begun}"delta":{{"role":"assistant","content":"one "}},"finish_reason":null}}]}}\n\n'
        more = f'data: {begun}"delta":{{"content":"three"}},"finish_reason":null}}]}}\n\n'
        ends = f'data: {begun}"delta":{{}},"finish_reason":"stop"}}]}}\n\ndata: [DONE]\n\n'
        primary.will(Raw(head + f'{said}data: {{"id": "a", "cho\n\n{more}{ends}'.encode()), "fine")
        answer = await gateway.ask(stream=True)
        assert '"one "' in answer.text and '"three"' in answer.text and answer.text.endswith("data: [DONE]\n\n")
        assert "x-gateway-skipped" in answer.text
        assert await text_of(gateway) == ("fine", "stop")


@pytest.mark.parametrize("ending", [Cut, Stalls])
async def test_11_a_missing_done_is_no_fault(ending):
    """The finish reason says that it is complete, whether the connection ends then or stays open."""
    async with failing() as (gateway, primary, _):
        primary.will(ending("all of it", after_events=5))
        assert await text_of(gateway) == ("all of it", "stop")


async def test_12_a_context_that_is_too_long_goes_to_the_larger_model_if_one_is_named():
    """And not to the others of the route, which are no larger."""
    too_long = Fails(400, {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded"}})
    async with failing() as (gateway, primary, spare):
        primary.will(too_long)
        answer = await ask(gateway)
        assert answer.headers["x-gateway-deployment"] == "spare/large" and spare.requests[0].json["model"] == "large"
    async with failing(context_fallbacks=[]) as (gateway, primary, spare):
        primary.will(too_long)
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(gateway)
        assert caught.value.code == "context_length_exceeded" and spare.asked == 0
        assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True])
async def test_13_a_content_filters_refusal_is_passed_on(stream):
    """With its reason, and to nobody else: it would be asked around until somebody says yes."""
    async with failing() as (gateway, primary, spare):
        primary.will(Fails(400, {"error": {"message": "the prompt was filtered: violence", "code": "content_filter"}}))
        with pytest.raises(openai.BadRequestError, match="violence") as caught:
            await ask(gateway, stream=stream)
        assert caught.value.code == "content_filter" and (primary.asked, spare.asked) == (1, 0)


async def test_14_a_fallback_that_refuses_to_be_prefilled_is_told_in_words():
    """Its 400 is not the client's; the error that counts is the one that would be told if nobody could go on."""
    refuses = Fails(400, {"error": {"message": "the final message must be from the user", "type": "x"}})
    route = {
        "midstream": "continue",
        "deployments": ["primary/one", {"target": "spare/two", "prefill": "plain"}],
    }
    async with failing(**route) as (gateway, primary, spare):
        primary.will(TWO_THIRDS)
        spare.will(refuses, "five six")
        assert await text_of(gateway) == ("one two three four five six", "stop")
        first, second = (asked.json["messages"] for asked in spare.requests)
        assert first[-1] == {"role": "assistant", "content": "one two three four"}
        assert second[-1]["role"] == "user" and second[-2]["content"] == "one two three four "
        primary.will(TWO_THIRDS)
        spare.will(refuses, refuses)
        with pytest.raises(openai.APIError, match="broke off"):
            await text_of(gateway)


async def test_15_a_primary_that_is_down_and_comes_back_is_primary_again():
    """Without a call lost meanwhile, and without anything being asked just to see."""
    async with failing() as (gateway, primary, spare):
        primary.will(*[Fails(500)] * 8)
        for _ in range(200):
            answer = await ask(gateway)
            if answer.headers["x-gateway-provider"] == "primary":
                break
            await asyncio.sleep(0.05)
        assert answer.headers["x-gateway-provider"] == "primary" and answer.headers["x-gateway-attempts"] == "1"
        assert primary.asked == 9, "five to find out, then one for each rest"
        asked = primary.asked + spare.asked
        await asyncio.sleep(0.5)
        assert primary.asked + spare.asked == asked


@pytest.mark.parametrize("stream", [False, True])
async def test_16_the_bill_of_a_fail_over_is_the_fallbacks(stream):
    """Its model, its usage, its price; the attempt that failed is no answer and costs nothing."""
    async with failing() as (gateway, primary, spare):
        primary.will(InBand("", "overloaded") if stream else Fails(500))
        spare.will(Says("fine", prompt_tokens=100, completion_tokens=20))
        answer = await gateway.ask(stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
        assert '"model": "two"' in answer.text and answer.headers["x-gateway-deployment"] == "spare/two"
        assert '"total_tokens": 120' in answer.text
        cost = "0.001200000"
        assert answer.text.endswith(f": x-gateway-cost: {cost}\n\ndata: [DONE]\n\n") if stream else True
        assert answer.headers["x-gateway-cost"] == ("at-end" if stream else cost)
