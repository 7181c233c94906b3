"""Upstreams that keep responses themselves, and those that make them in the background."""

import asyncio
import json

import httpx
import openai
import pytest

from tests.dialects import Asked, whole
from tests.kept import (
    CHAIN,
    JSON,
    KEYS,
    ann,
    config,
    create,
    one_by_one,
    postgres_server,
    said_to,
    upstream,
    url,
)
from tests.script import Events, Fails, Says, ScriptedUpstream
from tests.serving import serving
from tests.store.rows import rows_of

__all__ = ["postgres_server", "upstream", "url"]


def two_places(first, second):
    return (
        "providers:\n"
        f"  azure: {{api_key: secret, base_url: '{first.origin}'}}\n"
        f"  chat: {{kind: openai, api_key: secret, base_url: '{second.url}'}}\n"
        f"  other: {{kind: azure, api_key: secret, base_url: '{second.origin}'}}\n"
        "models:\n"
        "  m: {deployments: [chat/c, azure/a]}\n"
        "  n: {deployments: [azure/a, other/o]}\n"
        "  native: azure/a\n"
        f"{KEYS}{CHAIN}"
    )


async def test_a_follow_up_goes_where_the_response_is(upstream):
    """Whatever the route's order: there it is known with all its reasoning, and in the upstream's cache."""
    async with ScriptedUpstream() as second, serving(two_places(upstream, second)) as gateway:
        upstream.will(*one_by_one("one", "two"))
        client = ann(gateway)
        first = await client.responses.create(model="native", input="Hi")
        raw = await client.responses.with_raw_response.create(model="m", input="And?", previous_response_id=first.id)
        assert raw.headers["x-gateway-deployment"] == "azure/a" and raw.parse().output_text == "two"
        assert upstream.requests[1].json["previous_response_id"] == first.id
        assert second.asked == 0


@pytest.mark.parametrize("model", ["m", "n"], ids=["to chat completions", "to another that speaks Responses"])
async def test_where_the_response_is_gone_another_goes_on_with_the_history(upstream, model):
    """Its own ids and sealed reasoning are nothing to others."""
    async with ScriptedUpstream() as second, serving(two_places(upstream, second)) as gateway:
        reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "theirs"}

        def thoughtful(asked):
            said = json.loads(whole(Says("one"), asked)) | {"id": "resp_native_0"}
            return Fails(200, {**said, "output": [reasoning, *said["output"]]}, {"content-type": "application/json"})

        upstream.will(thoughtful, *[Fails(500)] * 3)
        second.will("two")
        client = ann(gateway)
        first = await client.responses.create(model="native", input="Hi")
        answer = await client.responses.create(model=model, input="And?", previous_response_id=first.id)
        assert answer.output_text == "two"
        (asked,) = second.requests
        assert said_to(asked) == ["Hi", "one", "And?"]
        assert (
            b"previous_response_id" not in asked.body
            and b"theirs" not in asked.body
            and b"it_scripted" not in asked.body
        )


async def test_an_upstream_that_has_forgotten_is_told_again(upstream):
    """Its key may now be another organisation's, or its days are over before ours."""
    lost = {"error": {"message": "gone", "code": "previous_response_not_found", "type": "invalid_request_error"}}
    async with serving(config("azure", upstream)) as gateway:
        upstream.will("one", Fails(400, lost), "two")
        first = await create(ann(gateway), False, input="Hi")
        second = await create(ann(gateway), False, input="And?", previous_response_id=first.id)
        assert second.output_text == "two" and said_to(upstream.requests[2]) == ["Hi", "one", "And?"]


async def test_a_conversation_moves_between_providers(upstream):
    """What one began another goes on with, and back: no id of ours reaches an upstream that does not know it."""
    async with ScriptedUpstream() as second, serving(two_places(upstream, second)) as gateway:
        upstream.will(*one_by_one("from azure"))
        second.will("from chat")
        client = ann(gateway)
        first = await client.responses.create(model="m", input="1")
        assert first.output_text == "from chat"
        third = await client.responses.create(model="native", input="2", previous_response_id=first.id)
        assert third.output_text == "from azure"
        assert said_to(upstream.requests[0]) == ["1", "from chat", "2"]
        assert first.id.encode() not in upstream.requests[0].body


async def test_background_is_the_upstreams_to_do(upstream, url):
    """It answers at once, is asked again while it works, and no more when it is over; what it used is counted once."""
    async with serving(priced(upstream, url)) as gateway:
        upstream.will(response("queued"), response("queued"), response("completed", "Hello"))
        client = ann(gateway)
        raw = await client.responses.with_raw_response.create(model="m", input="Hi", background=True)
        first = raw.parse()
        assert (first.status, raw.headers["x-gateway-cost"]) == ("queued", "0.000000000")
        raw = await client.responses.with_raw_response.retrieve(first.id)
        assert (raw.parse().status, raw.headers["x-gateway-cost"]) == ("queued", "0.000000000")
        with pytest.raises(openai.BadRequestError, match="is not over yet"):
            await create(client, False, input="And?", previous_response_id=first.id)
        raw = await client.responses.with_raw_response.retrieve(first.id)
        assert raw.parse().output_text == "Hello" and raw.headers["x-gateway-cost"] == "0.000012000"
        again = await client.responses.with_raw_response.retrieve(first.id)
        assert again.parse().output_text == "Hello" and again.headers["x-gateway-cost"] == "0"
        assert upstream.asked == 3
        assert (await client.responses.cancel(first.id)).status == "completed"
        metrics = (await gateway.http.get("/metrics")).text
        assert (
            'path="/v1/responses/{response_id}"' in metrics and 'path="/v1/responses/{response_id}/cancel"' in metrics
        )
    assert [asked.method for asked in upstream.requests] == ["POST", "GET", "GET"]
    if url:
        query = "SELECT operation, model, prompt_tokens, completion_tokens, cost_nusd FROM calls "
        query += "WHERE outcome = 'finished' ORDER BY at"
        rows = [tuple(row.values()) for row in await rows_of(url, query)]
        assert rows == [("chat", "m", 0, 0, 0), ("responses", "m", 10, 1, 12_000)]
    assert upstream.requests[2].path == f"/openai/v1/responses/{first.id}"


async def test_of_many_who_learn_that_it_is_over_one_is_charged(upstream):
    """Agents poll from several places."""
    async with serving(priced(upstream)) as gateway:
        upstream.will(response("queued"), *[response("completed", "Hello", after_s=0.3)] * 5)
        client = ann(gateway)
        first = await create(client, False, input="Hi", background=True)
        asked = [client.responses.with_raw_response.retrieve(first.id) for _ in range(5)]
        costs = sorted(raw.headers["x-gateway-cost"] for raw in await asyncio.gather(*asked))
        assert costs[4] == "0.000012000" and {float(cost) for cost in costs[:4]} == {0.0}


@pytest.mark.parametrize("who", ["the upstream", "the client"])
async def test_a_background_stream_that_breaks_is_charged_for_when_it_is_over(upstream, who):
    """Whoever broke it off: all that it used is charged to the call that finds out, once. Else answers were free."""
    *begin, end = background_stream()
    cut = Events(*begin) if who == "the upstream" else Events(b"".join(begin), end, between_s=60.0)
    upstream.will(cut, response("completed", "Hello"))
    async with serving(priced(upstream)) as gateway:
        client = ann(gateway)
        stream = await client.responses.create(model="m", input="Hi", background=True, stream=True)
        first = await anext(aiter(stream))
        assert (first.type, first.response.status) == ("response.created", "in_progress")
        if who == "the upstream":
            with pytest.raises((openai.APIError, httpx.HTTPError)):
                async for _ in stream:
                    pass
        await stream.close()
        await gateway.settle()
        raw = await client.responses.with_raw_response.retrieve(first.response.id)
        assert raw.parse().output_text == "Hello" and raw.headers["x-gateway-cost"] == "0.000012000"
        again = await client.responses.with_raw_response.retrieve(first.response.id)
        assert again.headers["x-gateway-cost"] == "0"


async def test_a_background_stream_that_is_read_to_its_end_is_charged_for_once(upstream):
    """Who comes back for it then has it from here, for nothing."""
    upstream.will(Events(*background_stream()))
    async with serving(priced(upstream)) as gateway:
        first = await create(ann(gateway), True, input="Hi", background=True)
        raw = await ann(gateway).responses.with_raw_response.retrieve(first.id)
        assert raw.parse().output_text == "Hello" and raw.headers["x-gateway-cost"] == "0"
    assert upstream.asked == 1


async def test_a_background_response_is_cancelled_at_its_upstream(upstream):
    """Nobody else can."""
    async with serving(config("azure", upstream)) as gateway:
        upstream.will(response("in_progress"), response("cancelled"))
        first = await create(ann(gateway), False, input="Hi", background=True)
        assert (await ann(gateway).responses.cancel(first.id)).status == "cancelled"
        assert (await ann(gateway).responses.retrieve(first.id)).status == "cancelled"
    assert (upstream.requests[1].method, upstream.requests[1].path) == (
        "POST",
        f"/openai/v1/responses/{first.id}/cancel",
    )
    assert upstream.asked == 2


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_background_is_refused_where_nobody_can_do_it(upstream, kind):
    """An answer that seems to be under way, and is not, would be waited for for ever."""
    async with serving(config(kind, upstream)) as gateway:
        with pytest.raises(openai.BadRequestError, match="read the answer as a stream"):
            await create(ann(gateway), False, input="Hi", background=True)
    assert upstream.asked == 0


def priced(upstream, url=""):
    """A configuration whose model has a price."""
    price = "m: {deployments: [{target: azure/some-model, price: {prompt: 1, completion: 2}}]}"
    return config("azure", upstream, url).replace("m: azure/some-model", price)


def background_stream():
    """The events of a response made in the background, from its beginning to its end."""
    delta = {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0}
    told = [
        {"type": "response.created", "response": response("in_progress").body},
        {**delta, "delta": "Hello"},
        {"type": "response.completed", "response": response("completed", "Hello").body},
    ]
    return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in told]


def response(status, text="", after_s=0.0):
    """An answer that tells of a response made in the background."""
    asked = Asked("POST", "/v1/responses", "", {}, b"{}")
    said = json.loads(whole(Says(text, prompt_tokens=10), asked))
    over = status == "completed"
    usage = said["usage"] if over else None
    told = {"status": status, "background": True, "usage": usage, "output": said["output"] if over else []}
    return Fails(200, said | told, JSON, after_s)
