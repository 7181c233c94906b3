"""Gemini: what the golden files do not show."""

import json
from typing import Any

import pytest

from gateway.core.errors import BadRequest, Unreachable, UpstreamFailed
from gateway.core.secret import Secret
from gateway.providers.gemini import FAILURES, Gemini, GeminiOptions
from gateway.providers.gemini_request import UNSIGNED
from tests.providers.test_golden import attempt, gathered

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "now"}}


@pytest.fixture
def gemini() -> Gemini:
    return GeminiOptions(api_key=Secret("sk-test")).build("gemini")


def sent(request: dict[str, Any], model: str = "gemini-2.5-flash") -> dict[str, Any]:
    provider = GeminiOptions(api_key=Secret("sk-test")).build("gemini")
    return json.loads(provider.request(attempt({"messages": HI, **request}, model)).body)


def part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def picture(url: str) -> dict[str, Any]:
    return part(type="image_url", image_url={"url": url})


def answer(*parts: dict[str, Any], finish: str = "STOP") -> bytes:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
    return json.dumps({"candidates": [candidate], "modelVersion": "gemini", "responseId": "r"}).encode()


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"n": 3}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"function_call": "auto"}, "function_call"),
        ({"reasoning_effort": "vast"}, "reasoning_effort"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]}, "messages[0].tool_call_id"),
        (picture("http://example.org/cat.png"), "messages[0].content[0].image_url.url"),
        (part(type="file", file={"file_id": "f"}), "messages[0].content[0].file"),
        (part(type="hologram"), "messages[0].content[0]"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(request_, param):
    """A field that is silently dropped is a wrong answer that nobody can explain."""
    with pytest.raises(BadRequest) as raised:
        sent(request_)
    assert raised.value.param == param


def test_one_tool_call_at_a_time_is_a_wish():
    """Clients say it with tools of their own accord, and take several calls all the same: a refusal helps nobody."""
    asked = {"tools": [TOOL], "tool_choice": "auto"}
    assert sent({**asked, "parallel_tool_calls": False}) == sent(asked)


@pytest.mark.parametrize("model", ["../../files", "gemini?key=x", "a/b:generateContent#", "модель"])
def test_a_models_name_cannot_leave_its_place_in_the_path(gemini, model):
    """Patterns let clients choose the name; it must not choose the endpoint."""
    url = gemini.request(attempt({"messages": HI}, model)).url
    name = url.removeprefix("https://generativelanguage.googleapis.com/v1beta/models/")
    assert name.endswith(":generateContent")
    assert not set("/?#:") & set(name.removesuffix(":generateContent"))


def test_the_key_travels_in_a_header(gemini):
    """Addresses end in logs."""
    request = gemini.request(attempt({"messages": HI, "stream": True}, "gemini-2.5-pro"))
    assert "sk-test" not in request.url
    assert request.headers["x-goog-api-key"] == "sk-test"


def test_a_picture_at_an_address_is_refused_where_google_does_not_fetch_it():
    """Gemini 2.0 and older take uploads only; the message says to send the picture itself."""
    with pytest.raises(BadRequest, match="data: URL"):
        sent(picture("https://example.org/cat.png"), "gemini-2.0-flash")


def test_a_signature_comes_back_with_its_call(gemini):
    """Gemini 3 refuses a turn whose calls lost their signatures."""
    called = {"functionCall": {"name": "now", "args": {}}, "thoughtSignature": "c2ln"}
    chunk = gemini.whole(attempt({"messages": HI}, "gemini-3-flash"), answer(called))
    message = json.loads(chunk.data)["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "noon"}
    turns = sent({"messages": [*HI, message, result]}, "gemini-3-flash")["contents"]
    assert turns[1]["parts"][0]["thoughtSignature"] == "c2ln"
    assert turns[2]["parts"][0]["functionResponse"]["name"] == "now"


@pytest.mark.parametrize(("model", "signature"), [("gemini-3-flash", UNSIGNED), ("gemini-2.5-flash", None)])
def test_a_lost_signature_is_replaced_where_one_is_needed(model, signature):
    """Most clients, and a history made elsewhere, have none."""
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages = [*HI, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": ""}]
    turns = sent({"messages": messages}, model)["contents"]
    assert turns[1]["parts"][0].get("thoughtSignature") == signature


@pytest.mark.parametrize(
    ("effort", "model", "config"),
    [
        ("none", "gemini-2.5-flash", {"thinkingBudget": 0}),
        ("low", "gemini-2.5-pro", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("minimal", "gemini-3-pro-preview", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("max", "gemini-4-argon", {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)
def test_an_effort_is_said_in_the_models_own_terms(effort, model, config):
    """A budget and a level exclude each other."""
    assert sent({"reasoning_effort": effort}, model)["generationConfig"]["thinkingConfig"] == config


@pytest.mark.parametrize(
    ("effort", "model"), [("none", "gemini-2.5-pro"), ("none", "gemini-3-flash"), ("low", "gemini-2.0-flash")]
)
def test_an_effort_that_a_model_cannot_make_is_refused(effort, model):
    """The cure is in the message, and costs no call."""
    with pytest.raises(BadRequest) as raised:
        sent({"reasoning_effort": effort}, model)
    assert raised.value.param == "reasoning_effort"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("RECITATION", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_every_finish_reason_is_one_of_openais(gemini, reason, finish):
    """Official helpers raise on `length` and `content_filter`, so a wrong word changes programs."""
    chunk = gemini.whole(attempt({"messages": HI}, "gemini-2.5-flash"), answer({"text": "x"}, finish=reason))
    assert chunk.finish_reason == finish


@pytest.mark.parametrize("reason", sorted(FAILURES))
def test_an_answer_that_went_wrong_is_no_stop(gemini, reason):
    """Half a tool call, told as a finished answer, is run by an agent."""
    with pytest.raises(Unreachable):
        gemini.whole(attempt({"messages": HI}, "gemini-2.5-flash"), answer({"text": "x"}, finish=reason))


def test_what_a_chat_completion_cannot_carry_is_an_error(gemini):
    """An empty answer that was charged for is worse."""
    made = answer({"inlineData": {"mimeType": "image/png", "data": "AA=="}})
    with pytest.raises(UpstreamFailed, match="image/png") as raised:
        gemini.whole(attempt({"messages": HI}, "gemini-2.5-flash-image"), made)
    assert not raised.value.retryable


def test_two_calls_of_one_answer_have_two_ids(gemini):
    """Results are told apart by nothing else."""
    call = {"functionCall": {"name": "now"}}
    chunk = gemini.whole(attempt({"messages": HI}, "gemini-2.5-flash"), answer(call, call))
    ids = [call["id"] for call in json.loads(chunk.data)["choices"][0]["message"]["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(ids)


def test_an_empty_answer_is_an_answer(gemini):
    """The model may have nothing to say, and says so with STOP."""
    chunk = gemini.whole(attempt({"messages": HI}, "gemini-2.5-flash"), answer())
    assert gathered([chunk])["chunks"][0]["choices"][0]["message"]["content"] == ""
