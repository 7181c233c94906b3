"""A client of any surface reaches any provider: streamed and whole, with tools, usage and errors in its own words."""

import json
import re

import openai
import pytest

from tests.dialects import whole
from tests.http.test_dialects import KINDS, config_of
from tests.script import Cut, Fails, Says, ScriptedUpstream, Tool
from tests.serving import serving

MESSAGE = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], "system": "Be kind."}
RESPONSE = {"model": "m", "input": "Hi", "instructions": "Be kind."}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
HELLO = Says("Hello there", prompt_tokens=100, completion_tokens=20)


@pytest.fixture(params=KINDS)
async def served(request):
    async with ScriptedUpstream() as upstream, serving(config_of(request.param, upstream)) as gateway:
        yield gateway, upstream


def events(text):
    """The events of a stream, each with its name."""
    found = re.findall(r"event: (\S+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(data)) for name, data in found]


async def test_a_client_of_messages_gets_a_message(served):
    """With what it used, as Anthropic counts."""
    gateway, upstream = served
    upstream.will(HELLO)
    answer = await gateway.post("/v1/messages", MESSAGE, {"anthropic-version": "2023-06-01", "x-api-key": "none"})
    said = answer.json()
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert (said["type"], said["role"], said["stop_reason"]) == ("message", "assistant", "end_turn")
    assert said["content"][0]["text"] == "Hello there"
    assert (said["usage"]["input_tokens"], said["usage"]["output_tokens"]) == (100, 20)


async def test_a_client_of_messages_gets_a_stream(served):
    """Every event by its name, in Anthropic's order, to its very end."""
    gateway, upstream = served
    upstream.will(HELLO)
    answer = await gateway.post("/v1/messages", {**MESSAGE, "stream": True})
    names = [name for name, _ in events(answer.text) if name != "ping"]
    assert names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"]
    deltas = [said["delta"] for name, said in events(answer.text) if name == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello there"
    (last,) = (said for name, said in events(answer.text) if name == "message_delta")
    assert (last["delta"]["stop_reason"], last["usage"]["output_tokens"]) == ("end_turn", 20)
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_messages_calls_tools(served, stream):
    """And its results go back in the upstream's own form."""
    gateway, upstream = served
    upstream.will(Tool("weather", {"city": "Oslo"}), "It rains.")
    tools = [{"name": "weather", "input_schema": WEATHER}]
    answer = await gateway.post("/v1/messages", {**MESSAGE, "tools": tools, "stream": stream})
    if stream:
        blocks = [said["content_block"] for name, said in events(answer.text) if name == "content_block_start"]
        deltas = [said["delta"] for name, said in events(answer.text) if name == "content_block_delta"]
        (block,) = (block for block in blocks if block["type"] == "tool_use")
        arguments = json.loads("".join(delta.get("partial_json", "") for delta in deltas))
    else:
        (block,) = (block for block in answer.json()["content"] if block["type"] == "tool_use")
        arguments = block["input"]
    assert (block["name"], arguments) == ("weather", {"city": "Oslo"})
    turns = [
        *MESSAGE["messages"],
        {"role": "assistant", "content": [{**block, "input": arguments}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": "rain"}]},
    ]
    second = await gateway.post("/v1/messages", {**MESSAGE, "tools": tools, "messages": turns})
    assert second.json()["content"][0]["text"] == "It rains."
    assert b"rain" in upstream.requests[1].body


async def test_what_is_wrong_is_told_to_clients_of_messages_in_their_words(served):
    """Anthropic's object, whoever failed; and a cut stream does not look complete."""
    gateway, upstream = served
    upstream.will(Fails(400, {"error": {"message": "too hot", "type": "invalid_request_error"}}))
    answer = await gateway.post("/v1/messages", MESSAGE)
    assert (answer.status_code, answer.json()["type"]) == (400, "error") and answer.json()["error"]["message"]
    unknown = await gateway.post("/v1/messages", {**MESSAGE, "model": "none"})
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    upstream.will(Cut("one two three four five", after_events=4))
    cut = await gateway.post("/v1/messages", {**MESSAGE, "stream": True})
    assert events(cut.text)[-1][0] == "error" and "message_stop" not in cut.text and '"stop_reason":"' not in cut.text


async def test_the_sdk_gets_a_response(served):
    """The official helper checks the order of events, and that ids do not change."""
    gateway, upstream = served
    upstream.will(HELLO, HELLO)
    client = gateway.openai()
    whole = await client.responses.create(**RESPONSE)
    assert (whole.status, whole.output_text, whole.usage.total_tokens) == ("completed", "Hello there", 120)
    async with client.responses.stream(**RESPONSE) as stream:
        final = await stream.get_final_response()
    assert (final.status, final.output_text, final.usage.output_tokens) == ("completed", "Hello there", 20)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_calls_tools_by_responses(served, stream):
    """And gives their results back."""
    gateway, upstream = served
    upstream.will(Tool("weather", {"city": "Oslo"}), "It rains.")
    client, tools = gateway.openai(), [{"type": "function", "name": "weather", "parameters": WEATHER}]
    if stream:
        async with client.responses.stream(**RESPONSE, tools=tools) as streamed:
            first = await streamed.get_final_response()
    else:
        first = await client.responses.create(**RESPONSE, tools=tools)
    (call,) = (item for item in first.output if item.type == "function_call")
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
    items = [
        {"role": "user", "content": "Hi"},
        call.model_dump(include={"type", "call_id", "name", "arguments"}),
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    second = await client.responses.create(**{**RESPONSE, "input": items}, tools=tools)
    assert second.output_text == "It rains."


async def test_what_is_wrong_is_told_to_clients_of_responses(served):
    """The official SDK raises it, as an answer and within a stream."""
    gateway, upstream = served
    with pytest.raises(openai.NotFoundError):
        await gateway.openai().responses.create(**{**RESPONSE, "model": "none"})
    upstream.will(Cut("one two three four five", after_events=4))
    with pytest.raises(openai.APIError):
        async for event in await gateway.openai().responses.create(**RESPONSE, stream=True):
            assert event.type != "response.completed"


async def test_tokens_are_counted_before_they_are_asked(served):
    """By estimate, and no upstream is asked."""
    gateway, upstream = served
    answer = await gateway.post("/v1/messages/count_tokens", MESSAGE)
    assert answer.json()["input_tokens"] > 0 and upstream.asked == 0
    assert (await gateway.post("/v1/messages/count_tokens", {**MESSAGE, "model": "none"})).status_code == 404


async def test_a_whole_answer_where_a_stream_was_asked_for_is_a_stream_or_the_upstreams_fault(served):
    """Some servers do not stream: translated it is told as one; passed on it would be no stream to the client."""
    gateway, upstream = served
    for path, body in (("/v1/messages", MESSAGE), ("/v1/responses", RESPONSE)):
        upstream.will(*[lambda asked: Fails(200, whole(HELLO, asked).decode())] * 3)
        answer = await gateway.post(path, {**body, "stream": True})
        told = "Hello there" in answer.text and answer.headers["content-type"].startswith("text/event-stream")
        assert told or (answer.status_code == 502 and "stream" in answer.text), answer.text
        await gateway.settle()
        upstream.script.clear()
