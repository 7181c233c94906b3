"""Bedrock: what the golden files do not show."""

import hashlib
import hmac
import json
import re
from typing import Any

import pytest

from gateway.core.errors import BadRequest, Unreachable
from gateway.core.secret import Secret
from gateway.providers.bedrock import BedrockOptions
from gateway.providers.bedrock_answer import ConverseDecoder
from gateway.providers.bedrock_models import family_of
from gateway.wire.events import Began, Counted, Ended
from tests import frames
from tests.providers.test_golden import attempt
from tests.script import Asked, Cut, Fails, InBand, Says, ScriptedUpstream, Tool
from tests.serving import CHAIN, serving

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "now"}}
CLAUDE, NOVA, NOVA_2, LLAMA = (
    "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "amazon.nova-pro-v1:0",
    "us.amazon.nova-2-lite-v1:0",
    "us.meta.llama4-maverick-17b-instruct-v1:0",
)
KEYS = {"access_key_id": Secret("AKIDEXAMPLE"), "secret_access_key": Secret("secret-EXAMPLE"), "region": "us-east-1"}


def options(**more: Any) -> BedrockOptions:
    return BedrockOptions(**{"api_key": Secret("bedrock-test"), "region": "us-east-1", **more})


def sent(request: dict[str, Any], model: str = CLAUDE) -> dict[str, Any]:
    provider = options().build("bedrock")
    return json.loads(provider.request(attempt({"messages": HI, **request}, model)).body)


def own(request: dict[str, Any], model: str = CLAUDE) -> dict[str, Any]:
    return sent(request, model).get("additionalModelRequestFields", {})


def part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def asked(id: str = "a", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    call = {"id": id, "type": "function", "function": {"name": "now", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call], **more}


def answered(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return [*HI, asked(), {"role": "tool", "tool_call_id": "a", "content": "noon"}, *more]


IMAGE, FILE = "messages[0].content[0].image_url.url", "messages[0].content[0].file"


@pytest.mark.parametrize(
    ("request_", "param", "model"),
    [
        ({"n": 2}, "n", CLAUDE),
        ({"logprobs": True}, "logprobs", CLAUDE),
        ({"logit_bias": {"5": 1}}, "logit_bias", CLAUDE),
        ({"modalities": ["text", "audio"]}, "modalities", CLAUDE),
        ({"web_search_options": {}}, "web_search_options", CLAUDE),
        ({"functions": []}, "functions", CLAUDE),
        ({"reasoning_effort": "vast"}, "reasoning_effort", CLAUDE),
        ({"reasoning_effort": "low"}, "reasoning_effort", NOVA),
        ({"reasoning_effort": "low"}, "reasoning_effort", LLAMA),
        ({"reasoning_effort": "none"}, "reasoning_effort", "openai.gpt-oss-20b-1:0"),
        ({"reasoning_effort": "none"}, "reasoning_effort", "us.anthropic.claude-fable-5-2"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "anthropic.claude-3-haiku-20240307-v1:0"),
        ({"reasoning_effort": "low", "max_tokens": 1024}, "max_completion_tokens", CLAUDE),
        ({"response_format": {"type": "grammar"}}, "response_format", CLAUDE),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format",
            "anthropic.claude-sonnet-4-20250514-v1:0",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]", CLAUDE),
        ({"tool_choice": "required"}, "tool_choice", CLAUDE),
        ({"messages": answered()}, "tools", NOVA),
        ({"messages": []}, "messages", CLAUDE),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages", CLAUDE),
        ({"messages": [{"role": "system", "content": "alone"}]}, "messages", CLAUDE),
        ({"messages": [*HI, {"role": "assistant", "content": "Dear"}]}, "messages", "us.anthropic.claude-opus-4-6-v1"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role", CLAUDE),
        ({"messages": [*HI, asked(arguments="{half")]}, "messages[1].tool_calls[0].function.arguments", CLAUDE),
        ({"messages": [*HI, asked(id="")]}, "messages[1].tool_calls[0].id", CLAUDE),
        ({"messages": [*HI, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id", CLAUDE),
        (
            part(type="input_audio", input_audio={"data": "", "format": "midi"}),
            "messages[0].content[0].input_audio.format",
            NOVA,
        ),
        (part(type="hologram"), "messages[0].content[0]", CLAUDE),
        (part(type="image_url", image_url={"url": "https://x.example/a.png"}), IMAGE, CLAUDE),
        (part(type="image_url", image_url={"url": "s3://bucket/picture"}), IMAGE, CLAUDE),
        (part(type="image_url", image_url={"url": "data:image/tiff;base64,aa"}), IMAGE, CLAUDE),
        (part(type="image_url", image_url={"url": "data:text/png;base64,aa"}), IMAGE, CLAUDE),
        (part(type="file", file={"file_id": "file-1"}), FILE, CLAUDE),
        (part(type="file", file={"file_data": "data:application/zip;base64,aa"}), f"{FILE}.file_data", CLAUDE),
    ],
)
def test_what_bedrock_cannot_say_is_refused_and_the_field_named(request_, param, model):
    """Silence would be another answer than the one that was asked for."""
    with pytest.raises(BadRequest) as raised:
        sent(request_, model)
    assert raised.value.param == param


def test_one_tool_call_at_a_time_is_a_wish():
    """Clients say it with tools of their own accord, and take several calls all the same: a refusal helps nobody."""
    asked = {"tools": [TOOL], "tool_choice": "auto"}
    assert sent({**asked, "parallel_tool_calls": False}, NOVA) == sent(asked, NOVA)


@pytest.mark.parametrize(
    ("effort", "model", "said"),
    [
        ("low", NOVA_2, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
        ("xhigh", NOVA_2, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        ("none", NOVA_2, {}),
        ("none", NOVA, {}),
        ("none", LLAMA, {}),
        ("minimal", "openai.gpt-oss-120b-1:0", {"reasoning_effort": "low"}),
        ("max", "global.openai.gpt-6-sol", {"reasoning": {"effort": "max"}}),
        ("none", "us.openai.gpt-5.6-sol", {"reasoning": {"effort": "none"}}),
        ("none", CLAUDE, {"thinking": {"type": "disabled"}}),
        ("max", CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 32_000}}),
        ("none", "anthropic.claude-3-haiku-20240307-v1:0", {}),
    ],
)
def test_each_family_is_told_to_think_in_its_own_words(effort, model, said):
    """A word of another family's is a 400, or thinking that nobody asked for."""
    assert own({"reasoning_effort": effort}, model) == said


def test_a_limit_of_tokens_goes_before_the_highest_effort():
    """Nova takes no limit with `high`; the limit is a demand, and the effort a wish."""
    body = sent({"reasoning_effort": "high", "max_tokens": 500, "temperature": 0.1}, NOVA_2)
    assert body["additionalModelRequestFields"]["reasoningConfig"]["maxReasoningEffort"] == "medium"
    assert body["inferenceConfig"] == {"maxTokens": 500, "temperature": 0.1}


def test_sampling_parameters_that_a_claude_rejects_are_left_out():
    """Newer ones take none, Claude 4 takes one of two, and none takes any while it thinks."""
    request = {"temperature": 0.2, "top_p": 0.9, "top_k": 5}
    assert sent(request, "anthropic.claude-opus-4-7-v1:0").keys() == {"messages"}
    assert sent(request)["inferenceConfig"] == {"temperature": 0.2}
    assert sent({**request, "reasoning_effort": "low"}).keys() == {"messages", "additionalModelRequestFields"}
    assert sent({**request, "reasoning_effort": "none"})["inferenceConfig"] == {"temperature": 0.2}
    assert sent(request, "anthropic.claude-3-haiku-20240307-v1:0")["inferenceConfig"]["topP"] == 0.9


def test_older_models_do_not_think_where_they_would_refuse_the_call():
    """A forced tool, and a turn whose thinking the client has lost, are demands; the effort is a wish."""
    assert "thinking" not in own({"tools": [TOOL], "tool_choice": "required", "reasoning_effort": "low"})
    assert "thinking" not in own({"messages": answered(), "tools": [TOOL], "reasoning_effort": "low"})
    assert own({"messages": answered(), "tools": [TOOL], "reasoning_effort": "low"}, "us.anthropic.claude-opus-5")


def test_one_tool_call_at_a_time_is_said_beside_the_choice():
    """Bedrock refuses a type of choice in both places, and one in neither."""
    request = {"tools": [TOOL], "parallel_tool_calls": False}
    for choice in ({}, {"tool_choice": "auto"}):
        body = sent(request | choice)
        assert "toolChoice" not in body["toolConfig"]
        assert own(request | choice)["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    body = sent(request | {"tool_choice": "required"})
    assert body["toolConfig"]["toolChoice"] == {"any": {}}
    assert own(request | {"tool_choice": "required"})["tool_choice"] == {"disable_parallel_tool_use": True}


def test_without_tools_none_is_called():
    """There is no `none` in Converse: without tools there is nothing to call, unless some were called before."""
    assert "toolConfig" not in sent({"tools": [TOOL], "tool_choice": "none"}, NOVA)
    body = sent({"messages": answered()})
    (tool,) = body["toolConfig"]["tools"]
    assert tool["toolSpec"]["name"] == "now"
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}


def test_cache_points_are_for_those_who_know_them():
    """Others refuse the call; behind an ARN is who the client says it is."""
    text = part(type="text", text="x", cache_control={"type": "ephemeral"})
    points = {
        model: len(sent(text, model)["messages"][0]["content"]) - 1 for model in (CLAUDE, NOVA, LLAMA, "arn:aws:x/y")
    }
    assert list(points.values()) == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("model", "thinking", "is_claude"),
    [
        ("anthropic.claude-opus-5", "claude", True),
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude", True),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5", "claude", True),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-2-lite-v1:0", "nova", False),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123", "unknown", False),
        ("deepseek.v3.2", "unknown", False),
        ("zai.glm-5.3", "unknown", False),
        ("openai.gpt-oss-20b-1:0", "effort", False),
        ("global.openai.gpt-6.1-sol", "reasoning", False),
    ],
)
def test_a_family_is_known_by_its_id(model, thinking, is_claude):
    """Behind any region, and at the end of an ARN."""
    family = family_of(model)
    assert (family.thinking, family.claude is not None) == (thinking, is_claude)


def test_an_answer_that_was_begun_can_be_continued_on_older_models_only():
    """It is asked before a broken stream is carried on."""
    assert options().prefill(CLAUDE) == "plain"
    assert options().prefill("us.anthropic.claude-opus-5") == "none"
    assert options().prefill(NOVA) == "none"
    assert options(behind={"arn:aws:x/y": CLAUDE}).prefill("arn:aws:x/y") == "plain"


@pytest.mark.parametrize(
    ("options_", "off"),
    [
        ({}, "AWS_BEARER_TOKEN_BEDROCK"),
        ({"region": "us-east-1"}, "access_key_id"),
        ({"api_key": Secret("k")}, "region"),
        ({"access_key_id": Secret("a"), "region": "us-east-1"}, "its secret_access_key is empty"),
        ({"secret_access_key": Secret("a"), "region": "us-east-1"}, "its access_key_id is empty"),
        ({**KEYS, "region": "", "base_url": "https://x"}, "region"),
        ({"api_key": Secret("k"), "base_url": "https://x"}, ""),
        ({"api_key": Secret("k"), "region": "us-east-1"}, ""),
        (KEYS, ""),
    ],
)
def test_without_credentials_or_a_region_it_is_off(options_, off):
    """And says which option is missing."""
    why = BedrockOptions(**options_).off()
    assert off in why and bool(off) == bool(why)


def test_a_region_is_no_address():
    """It becomes a part of one: `x.example/` would send the key elsewhere."""
    with pytest.raises(ValueError, match="us-east-1"):
        BedrockOptions(region="evil.example/")


def test_it_is_asked_where_it_is_and_priced_by_whoever_it_is():
    """China has a domain of its own; a VPC endpoint is AWS's, and another address is not."""

    def url(**more: Any) -> str:
        return options(**more).build("bedrock").request(attempt({"messages": HI}, "m")).url

    assert url(region="cn-north-1") == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn/model/m/converse"
    assert url(base_url="https://proxy.example/aws/") == "https://proxy.example/aws/model/m/converse"
    tables = {base_url: options(base_url=base_url).price_table() for base_url in ("", "https://proxy.example")}
    assert tables == {"": "aws", "https://proxy.example": ""}
    assert options(base_url="https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com").price_table() == "aws"


def test_an_api_key_goes_before_an_access_key():
    """As in AWS's own SDKs."""
    request = options(**KEYS).build("bedrock").request(attempt({"messages": HI}, CLAUDE))
    assert request.headers["authorization"] == "Bearer bedrock-test"
    assert "x-amz-date" not in request.headers


def test_what_aws_repeats_of_a_signature_is_masked():
    """It tells the canonical request that it expected, session token included."""
    provider = BedrockOptions(**KEYS, session_token=Secret("token-EXAMPLE")).build("bedrock")
    message = "The Canonical String should have been 'x-amz-security-token:token-EXAMPLE AKIDEXAMPLE secret-EXAMPLE'"
    error = provider.error(
        403, {"x-amzn-errortype": "InvalidSignatureException"}, json.dumps({"message": message}).encode()
    )
    assert "EXAMPLE" not in error.message and "Canonical String" in error.message


@pytest.mark.parametrize("name", ["<script>", "a" * 100, "", "#:", "Foo Bar"])
def test_an_error_s_name_is_a_name_or_none(name):
    """It becomes the code that clients' programs read."""
    error = options().build("bedrock").error(500, {"x-amzn-errortype": name}, b"{}")
    assert isinstance(error, Unreachable) and error.code == "upstream_unavailable"


def feed(decoder: ConverseDecoder, **event: Any) -> list[Any]:
    return decoder.feed(json.dumps(event).encode())


def test_what_was_used_may_come_before_the_stop_reason():
    """And is told behind it, where clients expect it."""
    decoder = ConverseDecoder()
    assert feed(decoder, metadata={"usage": {"inputTokens": 1, "outputTokens": 1}}) == []
    began, ended, counted = feed(decoder, messageStop={"stopReason": "end_turn"})
    assert (began, ended) == (Began("", ""), Ended("stop")) and isinstance(counted, Counted)
    assert decoder.finished


def test_a_beginning_that_is_said_twice_is_one():
    """A role said twice is joined by clients."""
    decoder = ConverseDecoder()
    assert [feed(decoder, messageStart={"role": "assistant"}) for _ in (1, 2)] == [[Began("", "")], []]


def test_a_picture_is_no_part_of_a_chat_completion():
    """To leave it out would be an empty answer that somebody pays for."""
    for event in (
        {"contentBlockStart": {"start": {"image": {"format": "png"}}}},
        {"contentBlockDelta": {"delta": {"image": {}}}},
    ):
        with pytest.raises(Exception, match="picture") as raised:
            feed(ConverseDecoder(), **event)
        assert not raised.value.retryable


@pytest.mark.parametrize("complete", [False, True])
def test_a_damaged_stream_is_no_answer_unless_it_was_complete_before(complete):
    """The network's cuts have no part in it."""
    said = [("messageStart", {}), ("contentBlockDelta", {"delta": {"text": "Hi"}})]
    said += [("messageStop", {"stopReason": "end_turn"})] * complete
    data = b"".join(frames.message("event", name, json.dumps(payload).encode()) for name, payload in said) + b"x" * 20
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader = options().build("bedrock").reader(attempt({"stream": True, "messages": HI}, CLAUDE))
        if complete:
            chunks = [chunk for piece in pieces for chunk in reader.feed(piece)] + reader.end()
            assert "".join(chunk.finish_reason for chunk in chunks) == "stop"
            continue
        with pytest.raises(Unreachable, match="the upstream sent"):
            [chunk for piece in pieces for chunk in reader.feed(piece)] + reader.end()
        assert reader.finished and not reader.complete


def test_a_page_in_place_of_a_stream_can_be_tried_elsewhere():
    """A proxy's page is no event stream, and nothing has left for the client."""
    reader = options().build("bedrock").reader(attempt({"stream": True, "messages": HI}, CLAUDE))
    with pytest.raises(Unreachable) as raised:
        reader.feed(b"<html><body>It works!</body></html>")
    assert raised.value.retryable


# ── Through the whole gateway ────────────────────────────────────────────────────────────────────────────────────

ASK = {"model": "m", "messages": HI}
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a-b_c"


def config(url: str, http: str = "native", model: str = CLAUDE) -> str:
    credentials = (
        "access_key_id: AKIDEXAMPLE, secret_access_key: secret-EXAMPLE, session_token: token, region: us-east-1"
    )
    provider = f"{{kind: bedrock, {credentials}, base_url: '{url}', headers: {{X-Team:  a   b}}, http: {http}}}"
    return f"providers: {{aws: {provider}}}\nmodels: {{m: 'aws/{model}'}}\n{CHAIN}\n"


@pytest.mark.parametrize("http", ["native", "httpx"])
@pytest.mark.parametrize("model", [CLAUDE, ARN])
async def test_what_arrives_is_what_was_signed(model, http):
    """Whoever changes a byte of the path, the host or a header on the way breaks the signature."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.origin, http, model)) as gateway:
        await gateway.openai().chat.completions.create(**ASK)
        (got,) = upstream.requests
        said, names, signature = re.split(", SignedHeaders=|, Signature=", got.headers["authorization"])
        assert said.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert names == "content-type;host;x-amz-date;x-amz-security-token;x-team"
        assert signature == signature_of(got, names.split(";"), "secret-EXAMPLE", said.split("/", 1)[1])
        assert got.headers["x-amz-security-token"] == "token"
        assert got.path.endswith("/converse") and got.path.count("/") == 3


def signature_of(got: Asked, names: list[str], secret: str, scope: str) -> str:
    """Return what AWS expects, from what arrived: its side of the algorithm."""
    headers = [f"{name}:{' '.join(got.headers[name].split())}" for name in names]
    payload = hashlib.sha256(got.body).hexdigest()
    lines = [got.method, got.path.replace("%", "%25"), got.query, *headers, "", ";".join(names), payload]
    asked = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in [*scope.split("/"), f"AWS4-HMAC-SHA256\n{got.headers['x-amz-date']}\n{scope}\n{asked}"]:
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key.hex()


async def test_the_official_sdk_reads_what_bedrock_says():
    """Text and tools, whole and streamed, usage and finish."""
    tools = [{"type": "function", "function": {"name": "weather"}}]
    async with ScriptedUpstream() as upstream, serving(config(upstream.origin)) as gateway:
        client = gateway.openai()
        upstream.will(Says("one two", prompt_tokens=12, completion_tokens=3, cached_tokens=5))
        whole = await client.chat.completions.create(**ASK)
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("one two", "stop")
        assert (whole.usage.prompt_tokens, whole.usage.prompt_tokens_details.cached_tokens) == (12, 5)
        upstream.will(Tool("weather", {"city": "Oslo"}))
        async with client.chat.completions.stream(**ASK, tools=tools, stream_options={"include_usage": True}) as stream:
            final = await stream.get_final_completion()
        (call,) = final.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
        assert (final.choices[0].finish_reason, final.usage.prompt_tokens) == ("tool_calls", 10)


async def test_what_fails_before_the_first_word_is_tried_again_and_what_breaks_is_told():
    """A throttled call, a stream that is cut, and one that says in the middle that it failed."""
    throttled = Fails(429, {"message": "wait"}, {"x-amzn-errortype": "ThrottlingException"})
    async with ScriptedUpstream() as upstream, serving(config(upstream.origin)) as gateway:
        upstream.will(throttled, "fine")
        assert "fine" in await gateway.stream(model="m")
        for step in (Cut("one two three", after_events=3), InBand("one two")):
            upstream.will(step)
            received = await gateway.stream(model="m")
            assert "one " in received and '"error"' in received and "[DONE]" not in received
