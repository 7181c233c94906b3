"""Ollama by its own API: what the golden files do not show."""

import json
from typing import Any

import pytest

from gateway.core.errors import BadRequest, Broke, Unreachable
from gateway.core.secret import Secret
from gateway.providers.ollama import Ollama, OllamaOptions
from tests.providers.test_golden import attempt

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "now"}}
MODEL = "qwen4:8b"


@pytest.fixture
def ollama() -> Ollama:
    return OllamaOptions().build("ollama")


def sent(request: dict[str, Any], model: str = MODEL, **options: Any) -> dict[str, Any]:
    provider = OllamaOptions(**options).build("ollama")
    return json.loads(provider.request(attempt({"messages": HI, **request}, model)).body)


def part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def line(content: str = "", **more: Any) -> bytes:
    return json.dumps({"model": MODEL, "message": {"content": content}, **more}).encode() + b"\n"


LAST = line(done=True, done_reason="stop", prompt_eval_count=4, eval_count=3)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"n": 3}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"reasoning_effort": "vast"}, "reasoning_effort"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "now"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"options": 5}, "options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]}, "messages[0].tool_call_id"),
        (part(type="image_url", image_url={"url": "https://x.example/1.png"}), "messages[0].content[0].image_url.url"),
        (part(type="file", file={"file_id": "f"}), "messages[0].content[0]"),
    ],
)
def test_what_ollama_cannot_say_is_refused_by_name(request_, param):
    """Silently leaving it out would change the answer."""
    with pytest.raises(BadRequest) as raised:
        sent(request_)
    assert raised.value.param == param


def test_one_tool_call_at_a_time_is_a_wish():
    """Clients say it with tools of their own accord, and take several calls all the same: a refusal helps nobody."""
    asked = {"tools": [TOOL], "tool_choice": "auto"}
    assert sent({**asked, "parallel_tool_calls": False}) == sent(asked)


def test_what_does_not_fit_into_the_context_is_an_error_unless_the_client_wants_otherwise():
    """By itself Ollama forgets the beginning of the conversation, and nobody is told."""
    assert (sent({})["truncate"], sent({})["shift"]) == (False, False)
    assert (sent({"truncate": True})["truncate"], sent({"shift": True})["shift"]) == (True, True)


def test_the_context_is_the_operators_unless_the_client_says_more_exactly():
    """Its default is a few thousand tokens, whatever the model can do."""
    assert "options" not in sent({})
    options = {"num_ctx": 32_768, "options": {"num_gpu": 1, "num_ctx": 5}}
    assert sent({}, **options)["options"] == {"num_ctx": 32_768, "num_gpu": 1}
    assert sent({"num_ctx": 4096}, **options)["options"] == {"num_ctx": 4096, "num_gpu": 1}
    assert sent({"num_ctx": 4096, "options": {"num_ctx": 64}}, **options)["options"]["num_ctx"] == 64


def test_tools_that_must_not_be_called_are_not_sent():
    """The API has no `tool_choice`."""
    assert "tools" not in sent({"tools": [TOOL], "tool_choice": "none"})
    assert sent({"tools": [TOOL], "tool_choice": "auto"})["tools"]


@pytest.mark.parametrize(
    ("effort", "model", "think"),
    [("high", MODEL, True), ("none", MODEL, False), ("xhigh", "gpt-oss:20b", "high"), ("low", "gpt-oss:20b", "low")],
)
def test_an_effort_is_a_level_where_there_are_levels(effort, model, think):
    """All other models can only be told whether to think."""
    assert sent({"reasoning_effort": effort}, model)["think"] == think


def test_a_model_that_always_thinks_is_not_told_otherwise():
    """It would think all the same."""
    with pytest.raises(BadRequest, match="always thinks"):
        sent({"reasoning_effort": "none"}, "gpt-oss:20b")
    assert "think" not in sent({})


@pytest.mark.parametrize("base_url", ["http://box:11434", "http://box:11434/v1/", "http://box:11434/api"])
def test_the_address_may_be_copied_with_a_path(base_url):
    """Most documentation names the OpenAI-compatible one."""
    provider = OllamaOptions(base_url=base_url).build("ollama")
    assert provider.request(attempt({"messages": HI}, MODEL)).url == "http://box:11434/api/chat"


def test_a_key_is_sent_only_where_there_is_one():
    """On one's own machine there is none, and it is on all the same."""
    request = attempt({"messages": HI}, MODEL)
    assert OllamaOptions().off() == ""
    assert "authorization" not in OllamaOptions().build("ollama").request(request).headers
    headers = OllamaOptions(api_key=Secret("sk-test")).build("ollama").request(request).headers
    assert headers["authorization"] == "Bearer sk-test"


def test_usage_without_its_prompt_is_not_told(ollama):
    """A prompt that Ollama had in its cache is not counted; half a usage would be believed."""
    chunk = ollama.whole(attempt({"messages": HI}, MODEL), line("Hi", done=True, eval_count=3))
    assert (chunk.text, chunk.usage) == ("Hi", None)


def test_a_whole_answer_without_its_end_is_none(ollama):
    """It was cut off."""
    with pytest.raises(Unreachable, match="no whole answer"):
        ollama.whole(attempt({"messages": HI}, MODEL), line("Hi"))


def test_a_line_that_cannot_be_read_is_missing_and_said_so(ollama):
    """A text can do without a word; not so if tools may be called, for Ollama says a call in one line."""
    torn = line("one ") + b'{"model":\n' + line("three") + LAST
    reader = ollama.reader(attempt({"messages": HI, "stream": True}, MODEL))
    chunks = reader.feed(torn) + reader.end()
    assert ("".join(chunk.text for chunk in chunks), sum(chunk.skipped for chunk in chunks)) == ("one three", 1)
    reader = ollama.reader(attempt({"messages": HI, "stream": True, "tools": [TOOL]}, MODEL))
    assert reader.feed(torn)[0].text == "one "
    with pytest.raises(Unreachable):
        reader.end()


def test_the_last_line_may_lack_its_end(ollama):
    """But not its last brace."""
    for cut, complete in ((1, True), (2, False)):
        reader = ollama.reader(attempt({"messages": HI, "stream": True}, MODEL))
        reader.feed(line("Hi") + LAST[:-cut])
        if complete:
            assert reader.end()[0].finish_reason == "stop"
        else:
            with pytest.raises(Broke):
                reader.end()
