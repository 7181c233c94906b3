"""What names a model and is no chat: embeddings, completions, moderations, rerank, images, speech."""

import base64
import json
import struct

import openai
import pytest

from tests.script import Busy, Events, Fails, Html, Raw, ScriptedUpstream
from tests.serving import mock_config, serving

KEY = "test-key-0123456789abcdef"
EMBEDDED = {
    "object": "list",
    "model": "mock-1",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0, 0.25]}],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}
NUMBERS = [0.5, -1.0, 0.25]
IN_BASE64 = base64.b64encode(struct.pack("<3f", *NUMBERS)).decode()
SOUND = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 8\r\nset-cookie: a=b\r\n\r\n\xff\xfbsound\n"


@pytest.fixture
async def served():
    async with ScriptedUpstream() as upstream, serving(mock_config(upstream.url)) as gateway:
        yield gateway, upstream


def completions(*texts, finish="stop", usage=True):
    """The events of a streamed completion."""
    said = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in texts]
    said.append({"choices": [{"index": 0, "text": "", "finish_reason": finish}]} if finish else {"choices": []})
    if usage:
        said.append({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}})
    events = [f"data: {json.dumps({'id': 'cmpl-1', 'object': 'text_completion', **one})}\n\n".encode() for one in said]
    return Events(*events, b"data: [DONE]\n\n")


@pytest.mark.parametrize("asked", ["float", "base64", None])
@pytest.mark.parametrize("given", [NUMBERS, IN_BASE64])
async def test_embeddings_come_in_the_form_that_was_asked_for(served, asked, given):
    """The official SDK asks for base64 by itself, and Node's makes garbage of numbers; not all upstreams know it."""
    gateway, upstream = served
    upstream.will(Fails(200, {**EMBEDDED, "data": [{**EMBEDDED["data"][0], "embedding": given}]}))
    body = {"model": "mock", "input": "Hi", **({"encoding_format": asked} if asked else {})}
    answer = await gateway.post("/v1/embeddings", body)
    said = answer.json()["data"][0]["embedding"]
    assert upstream.requests[0].json == {**body, "model": "mock-1"}
    if asked == "base64":
        assert said == IN_BASE64
    else:
        assert said == given  # as it came: nothing was asked that the upstream did not give


async def test_the_sdk_reads_embeddings(served):
    """In both forms, with what they used; the receipt counts it and prices it."""
    gateway, upstream = served
    upstream.will(Fails(200, EMBEDDED), Fails(200, EMBEDDED))
    for more in ({}, {"encoding_format": "float"}):
        answer = await gateway.openai().embeddings.with_raw_response.create(model="mock", input="Hi", **more)
        assert answer.parse().data[0].embedding == NUMBERS
        assert answer.parse().usage.prompt_tokens == 3
        assert answer.headers["x-gateway-cost"] == "0.000003000"


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/embeddings", {"input": "Hi"}, EMBEDDED),
        ("/completions", {"prompt": "Hi"}, {"choices": [{"text": "Hello", "index": 0, "finish_reason": "stop"}]}),
        ("/moderations", {"input": "Hi"}, {"id": "m", "results": [{"flagged": False}]}),
        ("/rerank", {"query": "q", "documents": ["a"]}, {"results": [{"index": 0, "relevance_score": 0.5}]}),
        ("/images/generations", {"prompt": "a cat"}, {"created": 1, "data": [{"b64_json": "aGk="}]}),
        ("/audio/speech", {"input": "Hi", "voice": "v", "stream_format": "audio"}, {"anything": 1}),
    ],
)
async def test_what_is_asked_goes_on_and_what_is_answered_comes_back(served, path, body, answer):
    """Every field as it came but the model's name, unknown ones too; the answer's bytes as they are."""
    gateway, upstream = served
    upstream.will(Fails(200, answer))
    got = await gateway.post(f"/v1{path}", {"model": "mock", **body, "made_up": [1, {"x": None}]})
    assert got.content == json.dumps(answer).encode()
    asked = upstream.requests[0]
    assert (asked.method, asked.path) == ("POST", f"/v1{path}")
    assert asked.json == {"model": "mock-1", **body, "made_up": [1, {"x": None}]}
    assert asked.headers["authorization"] == "Bearer upstream-secret"
    assert got.headers["x-gateway-deployment"] == "mock/mock-1"


@pytest.mark.parametrize("path", ["embeddings", "completions", "moderations", "rerank"])
@pytest.mark.parametrize("answer", [{"error": {"message": "no"}}, {}, b"not json", [1]])
async def test_a_200_that_is_no_answer_is_a_502(served, path, answer):
    """SDKs do not look: they would make an object full of nothing of it."""
    gateway, upstream = served
    upstream.will(*[Fails(200, answer if not isinstance(answer, list) else json.dumps(answer))] * 3)
    got = await gateway.post(f"/v1/{path}", {"model": "mock", "input": "Hi", "prompt": "Hi"})
    assert got.status_code in (500, 502) and got.json()["error"]["type"] in ("upstream_error", "server_error")


async def test_an_upstream_that_is_busy_is_asked_again(served):
    """Retries and their wait are chat's own."""
    gateway, upstream = served
    upstream.will(Busy(), Fails(500), Fails(200, EMBEDDED))
    answer = await gateway.post("/v1/embeddings", {"model": "mock", "input": "Hi"})
    assert (answer.status_code, answer.headers["x-gateway-attempts"]) == (200, "3")


async def test_errors_have_the_form_that_sdks_know(served):
    """The upstream's own reason, and the class of the SDK's exception that goes with its status."""
    gateway, upstream = served
    upstream.will(Fails(400, {"error": {"message": "too many inputs", "param": "input", "code": "x"}}))
    with pytest.raises(openai.BadRequestError, match="too many inputs"):
        await gateway.openai().embeddings.create(model="mock", input="Hi")
    with pytest.raises(openai.NotFoundError, match="mock"):
        await gateway.openai().embeddings.create(model="mok", input="Hi")
    with pytest.raises(openai.BadRequestError, match="model"):
        await gateway.openai().embeddings.create(model="", input="Hi")
    with pytest.raises(openai.APIStatusError, match="takes POST"):
        await gateway.openai().get("/embeddings", cast_to=object)


async def test_a_provider_without_it_says_so(served):
    """With the cure, and nobody is asked."""
    gateway, _ = served
    with pytest.raises(openai.BadRequestError, match="no images here") as error:
        await gateway.openai().images.generate(model="echo", prompt="a cat")
    assert error.value.code == "operation_not_supported"


async def test_a_moderation_need_not_name_a_model():
    """As at OpenAI, whose SDK leaves it out."""
    async with ScriptedUpstream() as upstream:
        config = mock_config(upstream.url).replace("  echo: echo/echo", "  omni-moderation-latest: mock/omni")
        async with serving(config) as gateway:
            upstream.will(Fails(200, {"id": "m", "model": "omni", "results": [{"flagged": True}]}))
            answer = await gateway.openai().moderations.create(input="Hi")
            assert answer.results[0].flagged and upstream.requests[0].json["model"] == "omni"


@pytest.mark.parametrize("path", ["embeddings", "moderations", "completions", "rerank"])
async def test_what_has_no_file_takes_no_form(served, path):
    """It would be counted as nothing, and be answered from the cache as if all forms were one."""
    gateway, upstream = served
    answer = await gateway.http.post(f"/v1/{path}", data={"model": "mock", "input": "Hi"}, files={"a": b"b"})
    assert answer.status_code == 400 and "takes JSON" in answer.json()["error"]["message"] and not upstream.asked


# ── Completions ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asks_usage", [True, False])
async def test_completions_stream(served, asks_usage):
    """The usage is always asked for upstream, and shown to whoever asked for it."""
    gateway, upstream = served
    upstream.will(completions("Hello", " there"))
    options = {"stream_options": {"include_usage": True}} if asks_usage else {}
    stream = await gateway.openai().completions.create(model="mock", prompt="Hi", stream=True, **options)
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "Hello there"
    assert [chunk.usage.prompt_tokens for chunk in chunks if chunk.usage] == ([4] if asks_usage else [])
    assert upstream.requests[0].json["stream_options"] == {"include_usage": True}


async def test_a_completion_that_is_cut_never_looks_complete(served):
    """Neither where it has said something, nor where only one of two has its end."""
    gateway, upstream = served
    unended, one_of_two = completions("Hello", finish="", usage=False), completions("Hello", usage=False)
    for step, more in ((unended, {}), (one_of_two, {"n": 2}), (one_of_two, {"prompt": ["a", "b"]})):
        upstream.will(Events(*step.events[:-1]))
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in await gateway.openai().completions.create(
                **{"model": "mock", "prompt": "Hi", "stream": True, **more}
            ):
                pass


async def test_an_error_within_a_stream_is_told(served):
    """Behind what was said before."""
    gateway, upstream = served
    said = completions("Hello", usage=False).events[:1]
    upstream.will(Events(*said, b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n'))
    answer = await gateway.post("/v1/completions", {"model": "mock", "prompt": "Hi", "stream": True})
    assert "Hello" in answer.text and "overloaded" in answer.text and "[DONE]" not in answer.text


# ── Images and sounds ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_sound_comes_as_it_is(served):
    """Its bytes, its type and its length; and none of the upstream's cookies."""
    gateway, upstream = served
    upstream.will(Raw(SOUND, closes=False))
    answer = await gateway.openai().audio.speech.create(model="mock", voice="alloy", input="Hello")
    assert answer.content == b"\xff\xfbsound\n"
    headers = answer.response.headers
    assert (headers["content-type"], headers["content-length"]) == ("audio/mpeg", "8")
    assert "set-cookie" not in headers and headers["x-gateway-provider"] == "mock"


async def test_a_sound_that_is_cut_never_looks_complete(served):
    """The connection ends before the length that was promised."""
    gateway, upstream = served
    upstream.will(Raw(SOUND[:-3]))
    with pytest.raises(openai.APIConnectionError):
        await gateway.openai().audio.speech.create(model="mock", voice="alloy", input="Hello")


@pytest.mark.parametrize(
    ("path", "body", "kind", "more"),
    [
        ("images/generations", {"prompt": "a cat"}, "image_generation.completed", {"b64_json": "aGk="}),
        ("audio/speech", {"input": "Hi", "voice": "v", "stream_format": "sse"}, "speech.audio.done", {}),
    ],
)
async def test_events_pass_as_they_come(served, path, body, kind, more):
    """To the one that says it is the last, with what was used; a stream without it is cut."""
    gateway, upstream = served
    first = b'event: part\ndata: {"type": "part"}\n\n'
    usage = {"usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}}
    last = f"event: {kind}\ndata: {json.dumps({'type': kind, **more, **usage})}\n\n".encode()
    upstream.will(Events(first, last), Events(first))
    body = {"model": "mock", **body, "stream": True}
    answer = await gateway.post(f"/v1/{path}", body)
    assert answer.content.startswith(first + last)
    assert b"x-gateway-cost: 0.000019" in answer.content
    cut = await gateway.post(f"/v1/{path}", body)
    assert cut.content.startswith(first) and b'"error"' in cut.content and b"x-gateway-cost" not in cut.content


async def test_a_web_page_is_no_answer(served):
    """Broken proxies send one with a 200."""
    gateway, upstream = served
    upstream.will(*[Html()] * 3)
    answer = await gateway.post("/v1/audio/speech", {"model": "mock", "input": "Hi", "voice": "v"})
    assert answer.status_code == 502


# ── The chain ────────────────────────────────────────────────────────────────────────────────────────────────────

CHAIN = "chain: [{use: log, format: json}, {use: auth}, {use: limits}, {use: cache}, {use: cost}, {use: retry}]"
KEYS = f"keys: [{{name: team-a, key: {KEY}, models: [mock], limits: {{tokens_per_minute: 10}}}}]\n"


async def test_every_room_has_its_say(capfdbinary):
    """Auth, limits by tokens, the cache, the cost and the log line, as with chat."""
    async with ScriptedUpstream() as upstream, serving(mock_config(upstream.url, CHAIN, KEYS)) as gateway:
        body = {"model": "mock", "input": "Hi"}
        upstream.will(Fails(200, {**EMBEDDED, "usage": {"prompt_tokens": 9, "total_tokens": 9}}))
        key = {"authorization": f"Bearer {KEY}"}
        assert (await gateway.post("/v1/embeddings", body)).status_code == 401
        assert (await gateway.post("/v1/embeddings", {**body, "model": "echo"}, key)).status_code == 403
        first = await gateway.post("/v1/embeddings", body, key)
        again = await gateway.post("/v1/embeddings", body, key)
        assert (first.status_code, again.status_code) == (200, 200)
        assert (again.headers["x-gateway-cache"], again.content, upstream.asked) == ("hit", first.content, 1)
        other = await gateway.post("/v1/embeddings", {**body, "input": "x" * 40}, key)
        assert other.status_code == 429 and "tokens a minute" in other.json()["error"]["message"]
        await gateway.settle()
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines() if b'"event":"call"' in line]
    told = [(line["operation"], line["outcome"]) for line in lines]
    assert told == [("embeddings", outcome) for outcome in ("refused", "refused", "finished", "finished", "refused")]
