"""What a developer meets who points the official SDK at the gateway and changes nothing else."""

import asyncio
import json

import openai
import pytest

from tests.script import Busy, Cut, Fails, Html, InBand, Says, ScriptedUpstream, Silent, Slow, Tool
from tests.serving import mock_config, serving


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(upstream):
    async with serving(mock_config(upstream.url)) as gateway:
        yield gateway


async def test_the_sdk_gets_a_whole_answer(gateway, upstream):
    """The one thing everybody tries first."""
    upstream.will("Hello there")
    answer = await gateway.openai().chat.completions.create(model="mock", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content == "Hello there"
    assert answer.usage.total_tokens > 0
    assert upstream.requests[0].json["model"] == "mock-1"


async def test_the_sdk_gets_a_stream(gateway, upstream):
    """Piece by piece, with the finish reason, and no usage chunk that was not asked for."""
    upstream.will("one two three")
    stream = await gateway.openai().chat.completions.create(
        model="mock", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "one two three"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


async def test_usage_is_streamed_to_those_who_ask(gateway, upstream):
    """`include_usage` gives one more chunk, without choices."""
    stream = await gateway.openai().chat.completions.create(
        model="mock",
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *_, last = [chunk async for chunk in stream]
    assert last.choices == [] and last.usage.prompt_tokens > 0


async def test_the_sdks_stream_helper_gathers_tool_calls(gateway, upstream):
    """The helper crashes on missing indexes and repeated names, so it is the strictest reader there is."""
    upstream.will(Tool("weather", {"city": "Oslo"}))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    async with gateway.openai().chat.completions.stream(
        model="mock", messages=[{"role": "user", "content": "Hi"}], tools=tools
    ) as stream:
        final = await stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0].function
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})


async def test_unknown_fields_reach_the_upstream_untouched(gateway, upstream):
    """A vendor's newest parameter works on the day it comes out."""
    await gateway.ask(brand_new={"deep": [1, 2.50, "x"]}, temperature=0.10)
    asked = upstream.requests[0]
    assert asked.json["brand_new"] == {"deep": [1, 2.5, "x"]}
    assert asked.headers["authorization"] == "Bearer upstream-secret"


async def test_every_answer_says_where_it_came_from(gateway, upstream):
    """Provider, deployment, attempts, cache, cost, configuration: without opening a log."""
    upstream.will(Busy(), Says("Hi", prompt_tokens=10, completion_tokens=5))
    headers = (await gateway.ask()).headers
    assert headers["x-gateway-provider"] == "mock"
    assert headers["x-gateway-deployment"] == "mock/mock-1"
    assert headers["x-gateway-attempts"] == "2"
    assert headers["x-gateway-cache"] == "none"
    assert headers["x-gateway-cost"] == "0.000020000"
    assert headers["x-gateway-config"] == gateway.live.gateway.config_id
    assert headers["x-request-id"].startswith("req_")
    assert "upstream;dur=" in headers["server-timing"]


async def test_a_stream_says_its_cost_at_its_end(gateway, upstream):
    """Nobody knows it sooner; a comment is the one thing that no SDK trips over."""
    upstream.will(Says("Hi", prompt_tokens=10, completion_tokens=5))
    answer = await gateway.ask(stream=True)
    assert answer.headers["x-gateway-cost"] == "at-end"
    assert answer.text.endswith(": x-gateway-cost: 0.000020000\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "words"),
    [
        (b"", 400, "invalid_json", None, "empty"),
        (b'{"model": ', 400, "invalid_json", None, "not JSON"),
        (
            b'{"model": "mock", "messages": [{}], "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            400,
            "invalid_json",
            None,
            "deep",
        ),
        (b"[1]", 400, "invalid_json", None, "JSON object"),
        (b'\xff{"model"', 400, "invalid_json", None, "not JSON"),
        (b'{"messages": []}', 400, "missing_required_parameter", "model", "model"),
        (b'{"model": 3, "messages": []}', 400, "invalid_type", "model", "expected `str`, got `int`"),
        (b'{"model": "mock"}', 400, "missing_required_parameter", "messages", "messages"),
        (b'{"model": "mock", "messages": []}', 400, "empty_array", "messages", "at least one"),
        (b'{"model": "mock", "messages": "hi"}', 400, "invalid_type", "messages", "array"),
        (b'{"model": "mock", "messages": [{}], "stream": "yes"}', 400, "invalid_type", "stream", "bool"),
        (b'{"model": "mock", "messages": [{}], "max_tokens": 0}', 400, "integer_below_min_value", "max_tokens", "1"),
        (
            b'{"model": "mock", "messages": [{}], "stream_options": {"include_usage": 1}}',
            *(400, "invalid_type", "stream_options.include_usage", "bool"),
        ),
        (b'{"Model": "mock", "messages": [{}]}', 400, "unknown_parameter", "Model", 'did you mean "model"'),
        (b'{"model": "mok", "messages": [{}]}', 404, "model_not_found", "model", "did you mean mock"),
        (b'{"model": "echo", "messages": [{"role": "king"}]}', 400, "invalid_type", "messages[0].role", "king"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(gateway, upstream, body, status, code, param, words):
    """OpenAI's error object, the field by name, and the cure; no upstream is asked."""
    answer = await gateway.http.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert words in error["message"] and error["type"]
    assert answer.headers["x-should-retry"] == "false"
    assert upstream.asked == 0


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(upstream):
    """By its length if it says so, else as soon as it is too long."""
    async with serving(mock_config(upstream.url, more="server: {max_body: 1KB}\n")) as gateway:
        said = await gateway.ask("x" * 2000)
        unsaid = await gateway.http.post("/v1/chat/completions", content=_pieces())
    for answer in (said, unsaid):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert "server.max_body" in answer.json()["error"]["message"]


async def _pieces():
    for _ in range(4):
        yield b" " * 500


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/chat/completions", 405, "takes POST"),
        ("POST", "/v1/models", 405, "takes GET"),
        ("POST", "/health", 405, ""),
        ("GET", "/v2/nothing", 404, "/docs"),
        ("GET", "/v1/models/none/such", 404, "none/such"),
    ],
)
async def test_every_error_is_openais_object(gateway, method, path, status, words):
    """Also those that no handler of ours ever saw."""
    answer = await gateway.http.request(method, path)
    error = answer.json()["error"]
    assert answer.status_code == status and words in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    for name in ("provider", "deployment", "attempts", "cache", "cost", "config"):
        assert answer.headers[f"x-gateway-{name}"]
    assert answer.headers["x-request-id"] and answer.headers["server-timing"]
    if status == 405:
        assert answer.headers["allow"]


async def test_an_upstream_that_answers_html_with_200_is_a_502(gateway, upstream):
    """The SDK would hand the page to the caller as a string."""
    upstream.will(Html(), Html(), Html())
    with pytest.raises(openai.InternalServerError) as caught:
        await gateway.openai().chat.completions.create(model="mock", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.status_code == 502 and "<" not in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_the_sdk_does_not_multiply_our_retries(gateway, upstream):
    """Three attempts here are not nine because the SDK retries by status alone."""
    upstream.will(*[Fails(503)] * 9)
    with pytest.raises(openai.InternalServerError):
        await gateway.openai(max_retries=2).chat.completions.create(
            model="mock", messages=[{"role": "user", "content": "Hi"}]
        )
    assert upstream.asked == 3


async def test_the_upstreams_own_refusal_is_passed_on(gateway, upstream):
    """Its reason, its status, no second attempt."""
    upstream.will(Fails(400, {"error": {"message": "too long", "type": "x", "code": "context_length_exceeded"}}))
    with pytest.raises(openai.BadRequestError) as caught:
        await gateway.openai().chat.completions.create(model="mock", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "context_length_exceeded" and "too long" in caught.value.message
    assert upstream.asked == 1


@pytest.mark.parametrize(("status", "reason"), [(401, "(401 invalid_api_key)"), (403, "no mock-1 in Norway for ••••")])
async def test_the_gateways_own_key_is_not_the_clients_fault(gateway, upstream, status, reason):
    """A 401 of the upstream is not the client's 401, and its message may carry our key; why is still told."""
    error = {"message": "no mock-1 in Norway for upstream-secret", "code": "invalid_api_key"}
    upstream.will(Fails(status, {"error": error}))
    answer = await gateway.ask()
    assert answer.status_code == 502 and reason in answer.json()["error"]["message"]
    assert "upstream-secret" not in answer.text


@pytest.mark.parametrize("broken", [Cut("one two three", after_events=3), InBand("one two", "overloaded")])
async def test_a_stream_that_breaks_never_looks_complete(gateway, upstream, broken):
    """No finish reason, no [DONE]: an error that the SDK raises."""
    upstream.will(broken)
    with pytest.raises(openai.APIError):
        stream = await gateway.openai().chat.completions.create(
            model="mock", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert not any(chunk.choices[0].finish_reason for chunk in chunks)


async def test_before_the_first_content_a_stream_may_start_anew(gateway, upstream):
    """A role is no commitment: an upstream that fails right behind it is asked again."""
    upstream.will(InBand("", "overloaded"), "fine")
    answer = await gateway.ask(stream=True)
    assert answer.headers["x-gateway-attempts"] == "2" and '"fine"' in answer.text


async def test_a_client_that_leaves_stops_its_upstream(gateway, upstream):
    """Before the first byte as well as within the stream."""
    upstream.will(Silent(), Slow("a b c d e f g h", first_s=0, between_s=0.2))
    for stream in (False, True):
        asking = asyncio.ensure_future(gateway.ask(stream=stream))
        await upstream.until(lambda: upstream.asked)
        await asyncio.sleep(0.3)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await upstream.until(lambda n=stream + 1: len(upstream.gone) == n)


async def test_a_trace_goes_on_through_the_gateway(upstream):
    """The upstream gets the same trace and a new parent, where the configuration trusts it with that."""
    config = mock_config(upstream.url).replace("kind: openai,", "kind: openai, traceparent: true,")
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with serving(config) as gateway:
        await gateway.http.post(
            "/v1/chat/completions",
            json={"model": "mock", "messages": [{"role": "user", "content": "Hi"}]},
            headers={"traceparent": f"00-{trace}-{parent}-01"},
        )
    sent = upstream.requests[0].headers["traceparent"].split("-")
    assert sent[1] == trace and sent[2] != parent


async def test_credentials_and_cookies_of_the_client_stay_here(gateway, upstream):
    """Nothing that a client sends in its head reaches the upstream."""
    body = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"authorization": "Bearer mine", "cookie": "a=b", "x-api-key": "mine", "openai-organization": "org"}
    await gateway.http.post("/v1/chat/completions", json=body, headers=headers)
    sent = upstream.requests[0].headers
    assert "mine" not in str(sent) and "cookie" not in sent and "openai-organization" not in sent


async def test_the_models_are_listed_as_openai_does(gateway):
    """Ids with slashes and patterns included; the SDK asks for one by its id."""
    client = gateway.openai()
    assert [model.id async for model in client.models.list()] == ["mock", "echo"]
    assert (await client.models.retrieve("mock")).owned_by == "mock"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("none/such")


@pytest.mark.parametrize(
    "page", ["/", "/health", "/ready", "/live", "/metrics", "/info", "/docs", "/redoc", "/openapi.json"]
)
async def test_who_asks_whether_somebody_is_here_is_told(gateway, page):
    """Claude Code does, before its first question, and probes do; a 405 there looks like a wrong address."""
    asked = await gateway.http.get(page)
    answer = await gateway.http.head(page)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == asked.headers["content-type"]
    assert (
        f'http_requests_total{{method="HEAD",path="{page}",status="200"}}' in (await gateway.http.get("/metrics")).text
    )


async def test_head_says_that_it_drains_too(gateway):
    """A balancer that asks by HEAD has to notice as well."""
    gateway.live.draining = True
    assert (await gateway.http.head("/ready")).status_code == 503


async def test_a_chain_without_retry_tries_once(upstream):
    """Leaving a middleware out leaves out what it does, and nothing else."""
    async with serving(mock_config(upstream.url, chain="chain: []")) as gateway:
        upstream.will(Busy(), "Hi")
        assert (await gateway.ask()).status_code == 429
        assert (await gateway.ask()).json()["choices"][0]["message"]["content"] == "Hi"


async def test_echo_needs_no_account(gateway):
    """The first curl of a fresh clone."""
    answer = await gateway.ask("Say it back", model="echo")
    assert answer.json()["choices"][0]["message"]["content"] == "Say it back"
    assert answer.headers["x-gateway-cost"] == "0.000000000"
