"""The echo answers without a key, a network or a cost, and in the shape of any other answer."""

import json

import pytest

from gateway.core.errors import BadRequest
from gateway.core.usage import Usage
from gateway.providers.base import LocalProvider
from gateway.providers.echo import EchoOptions
from tests.providers.test_golden import attempt, check_chunks, gathered


def ask(text, **request):
    messages = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "no"}]
    messages += [{"role": "user", "content": text}, {"role": "tool", "tool_call_id": "t", "content": "x y"}]
    return EchoOptions().build("echo").answer(attempt({"messages": messages, **request}, "echo"))


def test_it_needs_nothing_and_asks_nobody():
    """It is what a fresh checkout answers with."""
    assert EchoOptions().off() == ""
    assert isinstance(EchoOptions().build("echo"), LocalProvider)


def test_it_says_the_last_user_message_exactly():
    """Spaces and line ends included, whole and streamed."""
    text = "  One\n two\tthree "
    (whole,) = ask(text)
    assert (whole.text, whole.finish_reason, whole.usage) == (text, "stop", Usage(prompt_tokens=7, completion_tokens=3))
    assert json.loads(whole.data)["choices"][0]["message"]["content"] == text
    assert "".join(chunk.text for chunk in ask(text, stream=True)) == text


def test_it_streams_a_word_at_a_time():
    """So that a client can be seen to read a stream."""
    chunks = ask("One two three", stream=True)
    assert [chunk.text for chunk in chunks] == ["One", " two", " three", "", ""]
    assert (chunks[0].silent, chunks[-1].usage_only) == (False, True)
    check_chunks(gathered(chunks)["chunks"], complete=True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_it_stops_at_the_most_tokens(name, stream):
    """A word is a token; `length` says that there was more."""
    outcome = gathered(ask("One two three", stream=stream, **{name: 2}))
    assert (outcome["text"], outcome["finish_reason"], outcome["usage"]["completion_tokens"]) == (
        "One two",
        "length",
        2,
    )
    assert gathered(ask("One two", stream=stream, **{name: 2}))["finish_reason"] == "stop"


@pytest.mark.parametrize(("stop", "said"), [("two", "One "), (["three", "wo"], "One t"), (["", "x"], "One two three")])
def test_it_stops_before_a_stop_sequence(stop, said):
    """The first of them that comes, which is not said itself."""
    outcome = gathered(ask("One two three", stop=stop))
    assert (outcome["text"], outcome["finish_reason"]) == (said, "stop")


def test_nothing_is_echoed_of_nothing():
    """An answer without text is one all the same: a role and an end."""
    chunks = ask("", stream=True)
    check_chunks(gathered(chunks)["chunks"], complete=True)
    assert gathered(ask([{"type": "text", "text": ""}]))["text"] == ""


def test_several_answers_are_refused():
    """It would have to say the same twice."""
    with pytest.raises(BadRequest) as refused:
        ask("One", n=2)
    assert refused.value.param == "n"
