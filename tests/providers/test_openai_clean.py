"""What is right as it comes goes on as it came, and is never taken for what it is not."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers import openai, openai_reader
from gateway.providers.openai import OpenAI, OpenAIOptions
from gateway.providers.openai_clean import Alike, whole_in
from gateway.providers.openai_reader import ChatReader
from gateway.providers.openai_stream import StreamMender
from gateway.providers.vendors import vendor
from tests.calls import a_body
from tests.standins import PLACE, StillClock, call_of

TEXT = st.text(min_size=1, max_size=12) | st.sampled_from(
    ['"', "\\", '","finish_reason":"stop', "\x7f", "\u2028", "🌊"]
)
PADDING = st.text("abcXYZ019", max_size=6) | st.sampled_from(["", "a-b", 'a"b', "é"])


def reader_of() -> ChatReader:
    return ChatReader(call_of(StillClock(), stream=True).attempt(PLACE), vendor("openai"))


def event(delta: dict[str, Any], *, tight: bool = True, plain: bool = False, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": more.pop("finish_reason", None)}
    said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    separators = (",", ":") if tight else (", ", ": ")
    return b"data: " + json.dumps(said, separators=separators, ensure_ascii=not plain).encode() + b"\n\n"


BEGINNING = event({"role": "assistant", "content": ""})


@given(said=st.lists(st.tuples(TEXT, PADDING), max_size=8), form=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_events_that_differ_in_their_text_alone_are_read_as_those_that_are_decoded(
    said: list[tuple[str, str]], form: tuple[bool, bool, bool]
):
    """Whatever the text holds, quotes and escapes included, and whether the bytes are padded."""
    reader = reader_of()
    reader.feed(BEGINNING)
    tight, plain, padded = form
    for text, padding in said:
        more = {"obfuscation": padding} if padded else {}
        data = event({"content": text}, tight=tight, plain=plain, **more)
        assert reader.feed(data) == [Chunk(data, text)]


@given(said=st.lists(st.tuples(TEXT, PADDING), min_size=1, max_size=8))
def test_events_that_come_together_are_read_as_those_that_come_alone(said: list[tuple[str, str]]):
    """How the network cuts a stream changes nothing of what it says."""
    data = [event({"content": text}, obfuscation=padding) for text, padding in said]
    reader = reader_of()
    reader.feed(BEGINNING)
    assert reader.feed(b"".join(data)) == [Chunk(b"".join(data), "".join(text for text, _ in said))]


def test_what_is_known_of_events_ends_where_they_may_mean_something_else():
    """Behind a finish reason, an event like those before it is looked at anew."""
    alike = Alike()
    alike.learn(event({"content": "Hello"})[6:-2], "Hello")
    alike.forget()
    assert alike.text_in(event({"content": "Hi"})[6:-2]) == ""


@pytest.mark.parametrize(
    "other",
    [
        event({"content": "Hi"}, finish_reason="stop"),
        event({"content": "Hi", "role": "assistant"}),
        event({"content": "Hi"}, error={"message": "no"}),
        event({"content": ""}),
        event({"content": "Hi"}, model="other"),
        event({"content": "H"}).replace(b'"H"', b'"\xff"'),
        event({"content": "H"}).replace(b'"H"', b'"a\tb"'),
        event({"content": "H"}).replace(b'"H"', b'"a\nb"'),
        event({"content": "H"}).replace(b'"H"', b"null"),
        event({"content": "Hi"}, obfuscation="a"),
        event({"content": "Hi"})[:-5] + b"\n\n",
    ],
)
def test_an_event_that_differs_in_anything_else_is_decoded(other: bytes):
    """An ending, an error or damage must not pass as text."""
    alike = Alike()
    alike.learn(event({"content": "Hello"})[6:-2], "Hello")
    assert alike.text_in(event({"content": "Hi"})[6:-2]) == "Hi"
    assert alike.text_in(other[6:-2]) == ""


def test_what_else_is_called_content_is_not_learnt():
    """Only the text itself may differ: a verdict or a log probability has a `content` of its own."""
    alike = Alike()
    alike.learn(event({"content": "Hello"}, verdict={"content": "Hello"})[6:-2], "Hello")
    assert alike.text_in(event({"content": "Hello"}, verdict={"content": "Hi"})[6:-2]) == ""


def usage_event(usage: Any, **more: Any) -> bytes:
    said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
    return b"data: " + json.dumps({**said, **more}, separators=(",", ":")).encode() + b"\n\n"


COUNTS: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"
TURNS = {
    "role": BEGINNING,
    "role and nothing": event({"role": "assistant", "content": None, "refusal": None}, usage=None),
    "role and text": event({"role": "assistant", "content": "Hi"}, service_tier="default"),
    "no role": event({"content": ""}),
    "another's role": event({"role": "assistant", "content": ""}, id="d"),
    "no id": event({"role": "assistant", "content": ""}, id=""),
    "role and call": event(
        {"role": "assistant", "tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}
    ),
    "role and sound": event({"role": "assistant", "content": "", "audio": {"id": "a"}}),
    "role and notes": event({"role": "assistant", "content": "", "annotations": []}),
    "verdict": event({"role": "assistant", "content": ""}, id="", choices=[], prompt_filter_results=[1]),
    "text": event({"content": "Hello"}),
    "end": event({}, finish_reason="stop", usage=None),
    "end with text": event({"content": "!"}, finish_reason="length"),
    "end with role": event({"role": "assistant"}, finish_reason="stop"),
    "end of calls": event({}, finish_reason="tool_calls"),
    "another end": event({}, finish_reason="eos"),
    "end with usage": event({}, finish_reason="stop", usage=COUNTS),
    "end with usage beside": event({}, finish_reason="stop", x_groq={"usage": COUNTS}),
    "usage": usage_event({**COUNTS, "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0}}),
    "usage of a tier": usage_event(COUNTS, service_tier="flex"),
    "usage of nothing": usage_event({"prompt_tokens": 0, "completion_tokens": 0}),
    "usage in other words": usage_event({**COUNTS, "cached_tokens": 2}),
    "usage beside": usage_event(None, x_groq={"usage": COUNTS}),
    "failure": usage_event(COUNTS, error={"message": "no"}),
    "done": DONE,
}


def told(pieces: list[bytes], asked: dict[str, Any]) -> list[object]:
    """Return all that a reader makes of a stream, and what it thinks of it in between."""
    call = call_of(StillClock(), stream=True, body=a_body(**asked))
    reader, seen = ChatReader(call.attempt(PLACE), vendor("openai")), list[object]()
    try:
        for piece in pieces:
            seen += [reader.feed(piece), reader.complete, reader.finished]
        seen.append(reader.end())
    except UpstreamFailed as failure:
        seen.append((type(failure), failure.message))
    return seen


@given(
    names=st.lists(st.sampled_from(sorted(TURNS)), min_size=1, max_size=7),
    asked=st.sampled_from([{}, {"n": 2}, {"moderation": True}]),
    together=st.booleans(),
)
@example(names=["role", "text", "text", "end", "usage", "done"], asked={}, together=False)
@example(names=["role", "role and call", "end", "usage"], asked={}, together=False)
@example(names=["role", "text", "end with usage beside", "done"], asked={}, together=False)
@example(names=["verdict", "role", "text", "end", "end with usage", "usage"], asked={}, together=True)
def test_a_stream_is_read_the_same_at_first_sight_as_at_the_second(
    names: list[str], asked: dict[str, Any], together: bool
):
    """Beginnings, ends and usage go on as they came where nothing is to be mended, whatever came before them."""
    pieces = [TURNS[name] for name in names]
    pieces = [b"".join(pieces)] if together else pieces
    seen = told(pieces, asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_reader, "turn_in", _blind)
        assert told(pieces, asked) == seen


def test_the_turns_of_a_usual_stream_are_seen_at_first_sight(monkeypatch: pytest.MonkeyPatch):
    """A stream as OpenAI writes it is nowhere taken apart."""
    monkeypatch.setattr(StreamMender, "event", None)
    usual = ["role", "text", "end", "usage", "done"]
    chunks = [chunk for said in told([TURNS[name] for name in usual], {}) if isinstance(said, list) for chunk in said]
    assert b"".join(chunk.data for chunk in chunks) == b"".join(TURNS[name] for name in usual[:-1])
    assert [chunk.finish_reason for chunk in chunks] == ["", "", "stop", ""]
    assert chunks[-1].usage == Usage(3, 2, cached_tokens=1)


# ── Whole answers ────────────────────────────────────────────────────────────────────────────────────────────────────

MESSAGE: dict[str, Any] = {"role": "assistant", "content": "Hello", "refusal": None, "annotations": []}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
DETAILS = {"cached_tokens": 1, "audio_tokens": 0}
USAGE: dict[str, Any] = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": DETAILS,
}


def answer(*, message: Any = MESSAGE, finish: Any = "stop", usage: Any = USAGE, **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    said = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps({**said, **more}, ensure_ascii=False).encode()


RIGHT = [
    answer(),
    answer(usage=None),
    answer(message={**MESSAGE, "content": None, "tool_calls": [CALL]}, finish="tool_calls"),
    answer(message={**MESSAGE, "reasoning_content": "Hm."}, service_tier="flex"),
    answer(message={**MESSAGE, "content": "Blåt 🌊"}, finish="length", service_tier="default"),
]
OTHERS = [
    answer(finish=None),
    answer(finish="eos"),
    answer(id=""),
    answer(object="text"),
    answer(created=0),
    answer(message={**MESSAGE, "content": [{"type": "text", "text": "a"}]}),
    answer(message={**MESSAGE, "reasoning": "Hm."}),
    answer(message={**MESSAGE, "tool_calls": [CALL]}),
    answer(message={**MESSAGE, "tool_calls": [{**CALL, "id": None}]}, finish="tool_calls"),
    answer(usage={"prompt_tokens": 0, "completion_tokens": 0}),
    answer(usage={**USAGE, "prompt_tokens": -1}),
    answer(usage={**USAGE, "cached_tokens": 2}),
    answer(usage={**USAGE, "prompt_cache_hit_tokens": 2}),
    answer(usage={**USAGE, "cost_in_usd_ticks": 7}),
    answer(usage={**USAGE, "num_search_queries": 2}),
    answer(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 9}}),
    answer(usage={**USAGE, "completion_tokens_details": {"reasoning_tokens": 9}}),
    answer(usage={**USAGE, "completion_tokens_details": {"audio_tokens": 1}}),
]


@pytest.mark.parametrize("body", RIGHT + OTHERS)
def test_a_whole_answer_is_read_the_same_at_first_sight_as_at_the_second(body: bytes, monkeypatch: pytest.MonkeyPatch):
    """The short way is there to be fast, and for nothing else."""
    provider: OpenAI = OpenAIOptions().build("openai")
    attempt = call_of(StillClock()).attempt(PLACE)
    chunk = provider.whole(attempt, body)
    monkeypatch.setattr(openai, "whole_in", _blind)
    assert provider.whole(attempt, body) == chunk


def _blind(*_: object) -> None:
    """See nothing at first sight."""


@pytest.mark.parametrize("body", RIGHT)
def test_what_is_right_goes_on_at_first_sight(body: bytes):
    """Most answers are not taken apart."""
    found = whole_in(body, vendor("openai"), "gpt")
    assert found is not None
    assert found.data == body


@pytest.mark.parametrize("body", OTHERS)
def test_what_has_to_be_mended_or_counted_otherwise_gets_a_second_look(body: bytes):
    """Each of these is something that an official client crashes at, or that costs other money."""
    assert whole_in(body, vendor("openai"), "gpt") is None


@pytest.mark.parametrize("name", ["xai", "perplexity", "openrouter"])
def test_vendors_that_count_in_their_own_way_get_a_second_look(name: str):
    """Reasoning apart, costs that are stated, searches that nobody counts: `openai_usage` knows them."""
    row = vendor(name)
    assert whole_in(answer(), row, "gpt") is None
    used = whole_in(answer(usage=None), row, "gpt")
    assert used is not None
    assert used.usage is None


def test_models_that_search_without_saying_so_get_a_second_look():
    """Each answer of theirs is one search more on the bill."""
    assert whole_in(answer(), vendor("openai"), "gpt-4o-search-preview") is None


def test_damage_in_a_field_that_nobody_knows_is_seen():
    """A client's parser would fail at it."""
    assert whole_in(answer(note="x").replace(b'"x"', b'"\xff"'), vendor("openai"), "gpt") is None


def test_what_was_used_is_on_the_chunk():
    """Cached tokens included."""
    found = whole_in(answer(service_tier="flex"), vendor("openai"), "gpt")
    assert found is not None
    assert found.usage == Usage(3, 2, cached_tokens=1, service_tier="flex")
