"""One client, every dialect: the official SDK asks OpenAI's way, whoever answers."""

import json

import pytest

from tests.script import Cut, Fails, Raw, Says, ScriptedUpstream, Tool
from tests.serving import CHAIN, serving

KINDS = ("openai", "anthropic", "gemini", "azure", "bedrock", "vertex", "vertex-claude")
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
ASK = {"model": "m", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}


def config_of(kind, upstream):
    """A configuration whose model `m` is at an upstream of this kind."""
    kind, _, model = kind.partition("-")
    base_url = upstream.url if kind == "openai" else upstream.origin
    more = {"bedrock": ", region: eu-north-1", "vertex": ", project: p"}.get(kind, "")
    return (
        f"providers: {{{kind}: {{api_key: secret, base_url: '{base_url}'{more}}}}}\n"
        f"models: {{m: {kind}/{f'{model}-3-haiku' if model else 'some-model'}}}\n"
        f"{CHAIN}\n"
    )


@pytest.fixture(params=KINDS)
async def served(request):
    """A scripted upstream of one kind, and a gateway in front of it."""
    async with ScriptedUpstream() as upstream, serving(config_of(request.param, upstream)) as gateway:
        yield gateway, upstream


async def test_whole(served):
    """Text, finish reason, usage."""
    gateway, upstream = served
    upstream.will(Says("Hello there", prompt_tokens=12, completion_tokens=3))
    answer = await gateway.openai().chat.completions.create(**ASK)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello there", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 3)


async def test_streamed(served):
    """The same, piece by piece, through the SDK's accumulating helper."""
    gateway, upstream = served
    upstream.will(Says("one two three", prompt_tokens=12, completion_tokens=3))
    async with gateway.openai().chat.completions.stream(**ASK, stream_options={"include_usage": True}) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "one two three"
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (12, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_answered(served, stream):
    """There and back: the call's id comes back with its result."""
    gateway, upstream = served
    upstream.will(Tool("weather", {"city": "Oslo"}), "It rains.")
    client = gateway.openai()
    if stream:
        async with client.chat.completions.stream(**ASK, tools=TOOLS) as answering:
            first = await answering.get_final_completion()
    else:
        first = await client.chat.completions.create(**ASK, tools=TOOLS)
    choice = first.choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    messages = [
        *ASK["messages"],
        choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    second = await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert second.choices[0].message.content == "It rains."


async def test_a_failure_is_tried_again_and_a_cut_is_told(served):
    """Before the first content and after it."""
    gateway, upstream = served
    upstream.will(Fails(500), "fine", Cut("one two three four", after_events=3))
    assert (await gateway.http.post("/v1/chat/completions", json=ASK)).headers["x-gateway-attempts"] == "2"
    cut = (await gateway.ask(**ASK, stream=True)).text
    assert '"error"' in cut and "[DONE]" not in cut and '"finish_reason":"stop"' not in cut


async def test_connections_are_used_again(served):
    """After whole answers and after streams: a new TLS handshake for each call costs more than the call."""
    gateway, upstream = served
    for stream in (False, True, True, False):
        assert (await gateway.http.post("/v1/chat/completions", json={**ASK, "stream": stream})).status_code == 200
        await gateway.settle()
    assert upstream.asked == 4 and upstream.opened == 1


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("stream", [False, True])
async def test_json_nested_without_end_is_the_upstreams_fault(served, stream, status):
    """A decoder gives up on it in its own way; that is no bug of ours, and another attempt may do better."""
    gateway, upstream = served
    kind, body = (
        (b"text/event-stream", b"data: " + DEEP + b"\n\n") if stream and status == 200 else (b"text/json", DEEP)
    )
    head = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\nconnection: close\r\n\r\n" % (status, kind)
    upstream.will(*[Raw(head + body)] * 3)
    answer = await gateway.http.post("/v1/chat/completions", json={**ASK, "stream": stream})
    assert answer.status_code == (502 if status == 200 else 400) and "the gateway failed" not in answer.text
