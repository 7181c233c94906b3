"""Responses that build on one another, by the official SDK, at upstreams with and without a memory."""

import openai
import pytest

from gateway.middleware import history, keeping
from tests.kept import (
    JSON,
    KEYS,
    WEATHER,
    ann,
    config,
    create,
    kind,
    one_by_one,
    postgres_server,
    said_to,
    served,
    upstream,
    url,
)
from tests.script import Fails, Tool
from tests.serving import serving
from tests.store.rows import rows_of

__all__ = ["kind", "postgres_server", "served", "upstream", "url"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_follow_up_knows_what_was_said(kind, upstream, url, stream):
    """The same client code, whoever answers and wherever it is kept; also right behind an answer's last event."""
    upstream.will(*one_by_one("Rome.", "About 3 million.", "Yes."))
    async with serving(config(kind, upstream, url)) as gateway:
        client = ann(gateway)
        first = await create(client, stream, input="Capital of Italy?", instructions="Be brief.")
        second = await create(client, stream, input="How many live there?", previous_response_id=first.id)
        third = await create(client, stream, input="Sure?", previous_response_id=second.id, instructions="Be kind.")
    assert (second.output_text, third.output_text) == ("About 3 million.", "Yes.")
    last = upstream.requests[2]
    if kind == "azure":  # has it itself, and gets what the client sent
        assert last.json["previous_response_id"] == second.id and last.json["input"] == "Sure?"
        return
    said = [text for text in said_to(last) if text != "Be kind."]
    assert said == ["Capital of Italy?", "Rome.", "How many live there?", "About 3 million.", "Sure?"]
    assert b"Be brief." not in last.body, "instructions hold for one response"
    assert second.previous_response_id == first.id and third.previous_response_id == second.id


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_tool_is_called_in_one_response_and_answered_in_the_next(served, stream):
    """Agents send the result alone; the call that it belongs to is known here."""
    gateway, upstream = served
    upstream.will(Tool("weather", {"city": "Oslo"}), "It rains.")
    first = await create(ann(gateway), stream, input="Weather?", tools=[WEATHER])
    (call,) = (item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = await create(ann(gateway), stream, input=[result], previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text == "It rains."
    assert b"rain" in upstream.requests[1].body
    if "previous_response_id" not in upstream.requests[1].json:
        assert upstream.requests[1].body.count(b"Oslo") == 1 and b"Weather?" in upstream.requests[1].body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_item_may_be_named_instead_of_sent(served, stream):
    """The Vercel AI SDK does so with everything that was answered before."""
    gateway, upstream = served
    upstream.will(*one_by_one(Tool("weather", {"city": "Oslo"}), "It rains.", "Yes."))
    client = ann(gateway)
    first = await create(client, stream, input="Weather?", tools=[WEATHER])
    named = [{"type": "item_reference", "id": item.id} for item in first.output]
    (call,) = (item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    items = [{"role": "user", "content": "Weather?"}, *named, result]
    second = await create(client, stream, input=items, tools=[WEATHER])
    assert second.output_text == "It rains."
    if upstream.requests[1].path.endswith("/responses"):
        assert upstream.requests[1].json["input"] == items, "its own upstream knows it by this name"
    else:
        assert b"item_reference" not in upstream.requests[1].body and b"Oslo" in upstream.requests[1].body
    third = await create(client, stream, input="Sure?", previous_response_id=second.id, tools=[WEATHER])
    assert third.output_text == "Yes."
    listed = await client.responses.input_items.list(third.id, order="asc")
    assert [item.type for item in listed.data] == [
        *("message", "function_call", "function_call_output", "message", "message")
    ]


async def test_another_s_item_cannot_be_named(served):
    """An upstream of both would give it away."""
    gateway, upstream = served
    mine = await create(ann(gateway), False, input="Hi")
    for id in (mine.output[0].id, "msg_none"):
        with pytest.raises(openai.BadRequestError, match="not found") as caught:
            named = [{"role": "user", "content": "What was it?"}, {"type": "item_reference", "id": id}]
            await create(gateway.openai("secret-bob"), False, input=named)
        assert caught.value.param == "input[1]"
    with pytest.raises(openai.BadRequestError, match="at most 1000"):
        await create(ann(gateway), False, input=[{"type": "item_reference", "id": "x"}] * 1001)
    assert upstream.asked == 1


async def test_what_a_request_builds_on_is_bounded(served, monkeypatch):
    """In length and in bytes, each with the cure."""
    gateway, upstream = served
    upstream.will(*one_by_one("one", "two", "three"))
    client = ann(gateway)
    first = await create(client, False, input="Hi")
    second = await create(client, False, input="Hi", previous_response_id=first.id)
    monkeypatch.setattr(history, "MOST_TURNS", 1)
    with pytest.raises(openai.BadRequestError, match="2 responses, and 1 are the most; begin anew"):
        await create(client, False, input="Hi", previous_response_id=second.id)
    monkeypatch.setattr(history, "MOST_TURNS", 2)
    monkeypatch.setattr(history, "MOST_BYTES", 1000)
    with pytest.raises(openai.BadRequestError, match="bytes, and 1000 are the most; begin anew"):
        await create(client, False, input="Hi", previous_response_id=second.id)
    assert upstream.asked == 2
    monkeypatch.setattr(keeping, "MOST_KEPT_BYTES", 100)
    raw = await client.responses.with_raw_response.create(model="m", input="Hi")
    assert raw.headers["x-gateway-kept"] == "no" and raw.parse().output_text == "three"


async def test_a_limit_counts_all_that_a_follow_up_sends(upstream):
    """What was said before is read by the model again, and paid for: it must not pass as two words."""
    limit = "keys: [{name: ann, key: secret-ann, models: ['*'], limits: {tokens_per_minute: 2000}}]\n"
    upstream.will("word " * 1000, "Yes.")
    async with serving(config("openai", upstream).replace(KEYS, limit)) as gateway:
        first = await create(ann(gateway), False, input="word " * 1000, max_output_tokens=1)
        with pytest.raises(openai.RateLimitError):
            await create(ann(gateway), False, input="And?", previous_response_id=first.id, max_output_tokens=1)
        assert (await create(ann(gateway), False, input="And?", max_output_tokens=1)).output_text == "Yes."


@pytest.mark.parametrize("kind", ["anthropic"])
async def test_what_only_the_upstream_understands_comes_back_to_it(served):
    """Anthropic refuses the result of a tool without the thoughts before it; the client neither sees nor sends them."""
    gateway, upstream = served
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "signed"}
    used = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "some-model", "content": [thought, used]}
    upstream.will(Fails(200, {**message, "stop_reason": "tool_use", "usage": usage}, JSON), "It rains.")
    client = ann(gateway)
    first = await create(client, False, input="Weather?", tools=[WEATHER])
    assert "signed" not in first.model_dump_json()
    result = {"type": "function_call_output", "call_id": "toolu_1", "output": "rain"}
    second = await create(client, False, input=[result], previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text == "It rains."
    assert upstream.requests[1].json["messages"][1]["content"] == [thought, used]
    again, sealed = [
        await client.responses.retrieve(first.id, include=include) for include in ([], ["reasoning.encrypted_content"])
    ]
    assert again == first and [item.encrypted_content for item in sealed.output if item.type == "reasoning"] != [None]


async def test_two_answers_may_follow_one_response(served):
    """Each goes its own way, and knows nothing of the other."""
    gateway, upstream = served
    upstream.will(*one_by_one("one", "left", "right", "end"))
    client = ann(gateway)
    first = await create(client, False, input="begin")
    left = await create(client, False, input="L", previous_response_id=first.id)
    right = await create(client, False, input="R", previous_response_id=first.id)
    await create(client, False, input="on", previous_response_id=right.id)
    listed = await client.responses.input_items.list(left.id, order="asc")
    assert [item.content[0].text for item in listed.data] == ["begin", "one", "L"]
    if "previous_response_id" not in upstream.requests[3].json:
        assert said_to(upstream.requests[3]) == ["begin", "one", "R", "right", "on"]


async def test_what_is_not_to_be_kept_is_not(served, tmp_path):
    """`store: false` leaves nothing to be followed up, retrieved or found in the database; nor does a follow-up."""
    gateway, upstream = served
    upstream.will(*one_by_one("one", "two"))
    client = ann(gateway)
    first = await create(client, False, input="kept")
    second = await create(client, False, input="secret", previous_response_id=first.id, store=False)
    for ask in (
        client.responses.retrieve(second.id),
        client.responses.input_items.list(second.id),
        create(client, False, input="x", previous_response_id=second.id),
    ):
        with pytest.raises(openai.APIStatusError, match="not found"):
            await ask
    assert upstream.asked == 2
    rows = await rows_of(f"sqlite:///{tmp_path}/gateway.db", "SELECT id, data FROM objects WHERE kind = 'response'")
    assert [row["id"] for row in rows] == [first.id] and b"secret" not in rows[0]["data"]


async def test_where_the_configuration_keeps_nothing_nothing_is_kept(kind, upstream):
    """Not at the upstream either, which would unless it is told not to."""
    async with serving(config(kind, upstream, more="responses: {keep: 0s}")) as gateway:
        first = await create(ann(gateway), False, input="Hi")
        with pytest.raises(openai.NotFoundError):
            await ann(gateway).responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match=r"responses\.keep"):
            await create(ann(gateway), False, input="Hi", background=True)
    assert upstream.asked == 1 and (kind != "azure" or upstream.requests[0].json["store"] is False)


@pytest.mark.parametrize(("keep", "days"), [("", 30), ("responses: {keep: 12h}", 0.5)])
async def test_what_is_kept_is_kept_for_as_long_as_is_said(upstream, tmp_path, keep, days):
    """As long as OpenAI does, where nothing is said."""
    url = f"sqlite:///{tmp_path}/gateway.db"
    async with serving(config("openai", upstream, url, keep)) as gateway:
        await create(ann(gateway), False, input="Hi")
    rows = await rows_of(url, "SELECT expires - at AS kept_s FROM objects")
    assert [row["kept_s"] for row in rows] == [days * 86_400] * 2


async def test_an_answer_that_is_kept_is_not_one_from_the_cache(served):
    """It would have the same id twice: deleting one would delete the other."""
    gateway, upstream = served
    upstream.will(*one_by_one("one", "two"))
    first, second = [await create(ann(gateway), False, input="Hi") for _ in range(2)]
    assert first.id != second.id and upstream.asked == 2
    for _ in range(2):
        await create(ann(gateway), False, input="Hi", store=False)
    assert upstream.asked == 3
