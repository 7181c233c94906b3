"""Cohere: what the golden files do not show."""

import json
from typing import Any

import pytest

from gateway.core.errors import BadRequest, TimedOut, Unreachable
from gateway.core.price import Price
from gateway.core.secret import Secret
from gateway.core.usage import Usage
from gateway.providers.cohere import AnswerDecoder, Cohere, CohereOptions
from gateway.wire.events import Began, Ended, Said, ToolArgued, ToolBegan
from tests.providers.test_golden import attempt

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "now"}}
STRICT = {"type": "function", "function": {"name": "then", "strict": True}}
THINKER = "command-a-reasoning-08-2025"


@pytest.fixture
def cohere() -> Cohere:
    return CohereOptions(api_key=Secret("sk-test")).build("cohere")


def sent(request: dict[str, Any], model: str = "command-a-03-2025") -> dict[str, Any]:
    provider = CohereOptions(api_key=Secret("sk-test")).build("cohere")
    return json.loads(provider.request(attempt({"messages": HI, **request}, model)).body)


def part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def called(arguments: str = "{}", **more: Any) -> dict[str, Any]:
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": arguments}}
    return {"messages": [*HI, {"role": "assistant", "tool_calls": [call], **more}]}


def answer(**more: Any) -> bytes:
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
    return json.dumps({"id": "r", "message": message, "finish_reason": "COMPLETE", **more}).encode()


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"n": 3}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"functions": []}, "functions"),
        ({"reasoning_effort": "vast"}, "reasoning_effort"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "else"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (part(type="input_audio", input_audio={"data": "AA==", "format": "wav"}), "messages[0].content[0]"),
        (part(type="file", file={"file_id": "f"}), "messages[0].content[0]"),
        (called("[]"), "messages[1].tool_calls[0].function.arguments"),
        ({"messages": [{"role": "function", "name": "f", "content": "1"}]}, "messages[0].role"),
    ],
)
def test_what_cohere_cannot_say_is_refused_by_name(request_, param):
    """Silently leaving it out would change the answer."""
    with pytest.raises(BadRequest) as raised:
        sent(request_)
    assert raised.value.param == param


def test_one_tool_call_at_a_time_is_a_wish():
    """Clients say it with tools of their own accord, and take several calls all the same: a refusal helps nobody."""
    asked = {"tools": [TOOL], "tool_choice": "auto"}
    assert sent({**asked, "parallel_tool_calls": False}) == sent(asked)


def test_a_named_tool_is_the_only_one_and_must_be_called():
    """The API knows no names in `tool_choice`."""
    body = sent({"tools": [TOOL, STRICT], "tool_choice": {"type": "function", "function": {"name": "then"}}})
    assert [tool["function"]["name"] for tool in body["tools"]] == ["then"]
    assert (body["tool_choice"], body["strict_tools"]) == ("REQUIRED", True)


def test_tools_are_strict_when_all_of_them_are():
    """The API has one switch for all; some tools cannot be strict."""
    assert "strict_tools" not in sent({"tools": [TOOL, STRICT]})
    assert sent({"tools": [STRICT]})["strict_tools"] is True
    assert sent({"tools": [STRICT], "strict_tools": False})["strict_tools"] is False


@pytest.mark.parametrize(("effort", "thinking"), [("none", "disabled"), ("low", 1024), ("max", None)])
def test_an_effort_is_a_budget(effort, thinking):
    """And none at all for the highest: it thinks as long as it likes."""
    said = sent({"reasoning_effort": effort}, THINKER)["thinking"]
    assert said.get("token_budget", said["type"] if thinking else None) == thinking


def test_a_model_that_does_not_think_need_not_be_told_so():
    """Clients send `none` to all their models."""
    assert "thinking" not in sent({"reasoning_effort": "none"})


def test_reasoning_goes_back_in_the_place_where_it_came_from():
    """A plan for a model that plans, thinking for one that thinks, nothing where there is no place for it."""
    thought = {"reasoning_content": "Look."}
    assert sent(called(**thought))["messages"][1]["tool_plan"] == "Look."
    assert sent(called(**thought), THINKER)["messages"][1]["content"] == [{"type": "thinking", "thinking": "Look."}]
    blocks = {"thinking_blocks": [{"type": "thinking", "thinking": "Look.", "signature": "s"}]}
    assert sent(called(**blocks))["messages"][1]["tool_plan"] == "Look."
    told = {"messages": [*HI, {"role": "assistant", "content": "Yes", **thought}]}
    assert sent(told)["messages"][1] == {"role": "assistant", "content": "Yes"}


def test_the_bill_is_for_the_billed_units(cohere):
    """Cohere's own preamble counts as tokens and costs nothing: 1549 were used and 119 are charged."""
    usage = {
        "billed_units": {"input_tokens": 119, "output_tokens": 30},
        "tokens": {"input_tokens": 1549, "output_tokens": 62},
        "cached_tokens": 1000,
    }
    used = cohere.whole(attempt({"messages": HI}, "m"), answer(usage=usage)).usage
    assert (used.prompt_tokens, used.completion_tokens, used.cached_tokens) == (1549, 62, 1000)
    assert Price.per_million(2.5, 10, 1).cost_nusd(used) == 119 * 2500 + 30 * 10_000


def test_two_bills_are_one_and_half_a_bill_is_none():
    """What a part of an answer is charged for says nothing of the whole."""
    billed = Usage(10, 10, billed_tokens=(1, 2))
    assert (billed + billed).billed_tokens == (2, 4)
    assert (billed + Usage(1, 1)).billed_tokens is None


@pytest.mark.parametrize("usage", [None, {}, {"tokens": None}])
def test_usage_that_is_not_said_is_not_zero(cohere, usage):
    """Zero would be charged as nothing."""
    assert cohere.whole(attempt({"messages": HI}, "m"), answer(usage=usage)).usage is None


def test_an_answer_that_went_wrong_is_no_stop(cohere):
    """Whatever text there is before it."""
    for reason, failure in (("ERROR", Unreachable), ("TIMEOUT", TimedOut)):
        with pytest.raises(failure):
            cohere.whole(attempt({"messages": HI}, "m"), answer(finish_reason=reason))


def test_a_call_without_arguments_is_called_with_none():
    """Also if the stream never says that the call is over."""
    decoder = AnswerDecoder()
    call = {"message": {"tool_calls": {"id": "a", "function": {"name": "now", "arguments": ""}}}}
    events = decoder.feed(json.dumps({"type": "tool-call-start", "index": 0, "delta": call}).encode())
    assert events == [Began("", ""), ToolBegan(0, "a", "now")]
    events = decoder.feed(b'{"type":"message-end","delta":{"finish_reason":"TOOL_CALL"}}')
    assert events == [ToolArgued(0, "{}"), Ended("tool_calls")]
    assert decoder.complete


def test_the_beginning_may_be_missing():
    """Some intermediaries drop the first event."""
    delta = {"message": {"content": {"text": "Hi"}}}
    assert AnswerDecoder().feed(json.dumps({"type": "content-delta", "delta": delta}).encode()) == [
        Began("", ""),
        Said("Hi"),
    ]


def test_the_address_may_be_copied_with_its_version():
    """People do."""
    for base_url in ("https://proxy.example", "https://proxy.example/v2/"):
        provider = CohereOptions(api_key=Secret("sk"), base_url=base_url).build("cohere")
        assert provider.request(attempt({"messages": HI}, "m")).url == "https://proxy.example/v2/chat"


def test_without_a_key_it_is_off_and_says_which_variable_turns_it_on():
    """Cohere's own SDK reads the same one."""
    assert CohereOptions().off() == "its api_key is empty; set CO_API_KEY"
    assert CohereOptions().price_table() == "cohere"
    assert CohereOptions(base_url="https://proxy.example").price_table() == ""
