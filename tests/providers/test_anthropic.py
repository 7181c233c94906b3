"""Anthropic: what the golden files do not show."""

import json
from typing import Any

import pytest

from gateway.core.errors import BadRequest, Busy
from gateway.core.secret import Secret
from gateway.providers.anthropic import AnthropicOptions, MessageDecoder
from gateway.providers.anthropic_request import facts
from gateway.wire.events import Began
from tests.providers.test_golden import attempt

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "now"}}


def sent(request: dict[str, Any], model: str = "claude-sonnet-4-5") -> dict[str, Any]:
    provider = AnthropicOptions(api_key=Secret("sk-test")).build("anthropic")
    return json.loads(provider.request(attempt({"messages": HI, **request}, model)).body)


def part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def asked(id: str = "a", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    call = {"id": id, "type": "function", "function": {"name": "now", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call], **more}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": []}, "functions"),
        ({"reasoning_effort": "vast"}, "reasoning_effort"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": "some"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "alone"}]}, "messages"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*HI, asked(arguments="{half")]}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": [*HI, asked(arguments="[1]")]}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": [*HI, asked(id="")]}, "messages[1].tool_calls[0].id"),
        (part(type="input_audio", input_audio={"data": "", "format": "wav"}), "messages[0].content[0]"),
        (part(type="hologram"), "messages[0].content[0]"),
        (part(type="image_url", image_url={"url": "ftp://x"}), "messages[0].content[0].image_url.url"),
        (part(type="image_url", image_url={"url": "data:image/png,x"}), "messages[0].content[0].image_url.url"),
        (
            part(type="image_url", image_url={"url": "data:image/tiff;base64,AA=="}),
            "messages[0].content[0].image_url.url",
        ),
        (part(type="file", file={"file_id": "file-1"}), "messages[0].content[0].file"),
        (
            part(type="file", file={"file_data": "data:text/plain;base64,/w=="}),
            "messages[0].content[0].file.file_data",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(request_, param):
    """A field that is silently dropped is a wrong answer that nobody can explain."""
    with pytest.raises(BadRequest) as raised:
        sent(request_)
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("model", "max_tokens", "thinking"),
    [
        ("claude-3-haiku-20240307", 4096, "none"),
        ("claude-3-5-sonnet-20241022", 8192, "none"),
        ("claude-opus-4-20250514", 32_000, "budget"),
        ("claude-sonnet-4-5-20250929", 64_000, "budget"),
        ("claude-opus-4-6", 128_000, "adaptive"),
        ("anthropic.claude-fable-5-2", 128_000, "always"),
        ("claude-opus-9", 128_000, "adaptive"),
        ("deepseek-chat", 8192, "budget"),
    ],
)
def test_the_longest_beginning_of_a_name_tells_what_the_model_takes(model, max_tokens, thinking):
    """A dated or a new name finds its family; `claude-opus-4-2…` is a date and no 4.2."""
    assert (facts(model).max_tokens, facts(model).thinking) == (max_tokens, thinking)


def test_new_models_are_not_sent_sampling_parameters():
    """They answer 400 even to the defaults' neighbours."""
    request = {"temperature": 0.2, "top_p": 0.9, "top_k": 4}
    assert not {"temperature", "top_p", "top_k"} & sent(request, "claude-opus-4-7").keys()


def test_of_two_sampling_parameters_the_temperature_is_kept():
    """Claude 4 refuses both together; Claude 3 took them."""
    request = {"temperature": 0.2, "top_p": 0.9}
    assert "top_p" not in sent(request, "claude-opus-4-1")
    assert sent(request, "claude-3-haiku")["top_p"] == 0.9


def test_the_budget_for_thinking_leaves_room_for_the_answer():
    """The API refuses a budget that is not below max_tokens."""
    said = sent({"reasoning_effort": "max", "max_completion_tokens": 1500})
    assert said["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    with pytest.raises(BadRequest, match="1024"):
        sent({"reasoning_effort": "low", "max_completion_tokens": 1024})


def test_older_models_do_not_think_where_they_would_refuse_the_call():
    """A forced tool, and a turn whose thinking the client has lost, are demands; the effort is a wish."""
    forced = {"tools": [TOOL], "tool_choice": "required", "reasoning_effort": "low"}
    lost = {
        "messages": [*HI, asked(), {"role": "tool", "tool_call_id": "a", "content": "1"}],
        "reasoning_effort": "low",
    }
    assert "thinking" not in sent(forced)
    assert "thinking" not in sent(lost)
    assert sent(lost, "claude-opus-4-6")["thinking"]["type"] == "adaptive"


@pytest.mark.parametrize(
    ("effort", "model"), [("none", "claude-fable-5"), ("low", "claude-3-haiku"), ("high", "claude-3-5-sonnet-latest")]
)
def test_an_effort_that_a_model_cannot_make_is_refused(effort, model):
    """The cure is in the message, and costs no call."""
    with pytest.raises(BadRequest) as raised:
        sent({"reasoning_effort": effort}, model)
    assert raised.value.param == "reasoning_effort"


def test_an_answer_that_was_begun_can_be_continued_on_older_models_only():
    """Claude 4.6 and later answer 400."""
    request = {"messages": [*HI, {"role": "assistant", "content": "Dear"}]}
    assert sent(request)["messages"][-1]["role"] == "assistant"
    with pytest.raises(BadRequest):
        sent(request, "claude-opus-4-6")


def test_a_call_and_its_result_keep_the_same_id():
    """Other upstreams' ids hold letters that Anthropic refuses."""
    messages = [*HI, asked(id="call:ø/1"), {"role": "tool", "tool_call_id": "call:ø/1", "content": "x"}]
    turns = sent({"messages": messages})["messages"]
    assert turns[1]["content"][0]["id"] == turns[2]["content"][0]["tool_use_id"] == "call___1"


def test_an_answer_can_be_sent_back_with_the_next_turn():
    """A signed block that is changed, or lost within a tool's turn, is a 400."""
    block = {"type": "thinking", "thinking": "Look.", "signature": "c2ln"}
    turn = asked(reasoning_content="Look.", thinking_blocks=[block])
    messages = [*HI, turn, {"role": "tool", "tool_call_id": "a", "content": "noon"}]
    assert sent({"messages": messages})["messages"][1]["content"][0] == block


def test_options_may_move_it_and_add_headers():
    """For a proxy in between, or a beta."""
    options = AnthropicOptions(
        api_key=Secret("k"), base_url="https://proxy.example/v1/", headers={"Anthropic-Beta": "b"}
    )
    request = options.build("anthropic").request(attempt({"messages": HI}, "claude-opus-5"))
    assert request.url == "https://proxy.example/v1/messages"
    assert request.headers["anthropic-beta"] == "b"


def test_without_a_key_it_is_off():
    """And says which option is missing."""
    assert "api_key" in AnthropicOptions().off()


def test_an_overload_within_a_stream_is_no_rejection():
    """The status was 200; what it means is told by the error's type."""
    reader = AnthropicOptions().build("anthropic").reader(attempt({"stream": True, "messages": HI}, "claude-opus-5"))
    with pytest.raises(Busy):
        reader.feed(b'data: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n')


def test_a_beginning_that_is_said_twice_is_one():
    """Some intermediaries send it twice, and a role said twice is joined by clients."""
    decoder, start = MessageDecoder(), b'{"type":"message_start","message":{"id":"m","usage":{"input_tokens":3}}}'
    assert decoder.feed(start) == [Began("m", "")]
    assert decoder.feed(start) == []


def test_what_was_used_is_told_only_behind_a_finish():
    """The number that a message begins with is provisional; told at a break, it would be charged."""
    decoder = MessageDecoder()
    decoder.feed(b'{"type":"message_start","message":{"id":"m","usage":{"input_tokens":3,"output_tokens":1}}}')
    assert decoder.end() == []
