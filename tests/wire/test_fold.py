"""A stream and the whole answer that it tells are the same answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.wire.events import Began, Cited, Counted, Ended, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.fold import fold, unfold
from gateway.wire.openai import ChatWriter

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
words = st.text(max_size=12)


@st.composite
def calls(draw) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{n}", "type": "function", "function": {"name": draw(words), "arguments": draw(words)}}
        for n in range(draw(st.integers(0, 3)))
    ]


@st.composite
def choices(draw, index: int) -> dict[str, Any]:
    tools, refusal, content = draw(calls()), draw(words), draw(words)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content or (None if tools or refusal else ""),
        "refusal": refusal or None,
    }
    if thought := draw(words):
        message["reasoning_content"] = thought
    if tools:
        message["tool_calls"] = tools
    if draw(st.booleans()):
        message["annotations"] = [{"type": "url_citation", "url_citation": {"url": draw(words)}} for _ in range(2)]
    tokens = [{"token": draw(words), "logprob": -0.5, "bytes": [1], "top_logprobs": []} for _ in range(2)]
    return {
        "index": index,
        "message": message,
        "logprobs": draw(st.sampled_from([None, {"content": tokens, "refusal": None}])),
        "finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls"])),
        "content_filter_results": {"hate": {"filtered": False}},
    }


@st.composite
def wholes(draw) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "m",
        "choices": [draw(choices(index)) for index in range(draw(st.integers(1, 3)))],
        "usage": USAGE,
        "system_fingerprint": draw(words),
        "citations": [draw(words)],
    }


def chunk_of(whole: dict[str, Any]) -> Chunk:
    first = whole["choices"][0]
    return Chunk(json.dumps(whole).encode(), first["message"]["content"] or "", Usage(9, 3), first["finish_reason"])


def event(**delta: Any) -> Chunk:
    finish = delta.pop("finish", None)
    choice = {"index": delta.pop("choice", 0), "delta": delta, "finish_reason": finish}
    said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return Chunk(
        b"data: " + json.dumps(said).encode() + b"\n\n", delta.get("content") or "", finish_reason=finish or ""
    )


def folded(*chunks: Chunk) -> dict[str, Any]:
    return json.loads(fold(chunks).data)


@given(whole=wholes())
def test_a_whole_answer_survives_being_streamed(whole):
    """A cache keeps one form and serves both; nothing may be lost on the way, a vendor's own fields included."""
    chunk = chunk_of(whole)
    back = fold(unfold(chunk))
    assert json.loads(back.data) == whole
    assert (back.text, back.usage, back.finish_reason) == (chunk.text, chunk.usage, chunk.finish_reason)


@given(whole=wholes())
def test_the_official_helper_reads_the_stream_of_a_whole_answer(whole):
    """It crashes on a tool call without an index and joins repeated ids; it must see what the whole answer says."""
    state = ChatCompletionStreamState()
    for chunk in unfold(chunk_of(whole)):
        for line in chunk.data.split(b"\n\n")[:-1]:
            state.handle_chunk(ChatCompletionChunk.model_construct(**_built(json.loads(line[6:]))))
    snapshot = state.current_completion_snapshot
    for said, read in zip(whole["choices"], snapshot.choices, strict=True):
        assert (read.message.content or "") == (said["message"]["content"] or "")
        assert read.finish_reason == said["finish_reason"]
        told = [(call.id, call.function.name, call.function.arguments) for call in read.message.tool_calls or []]
        wanted = [
            (c["id"], c["function"]["name"], c["function"]["arguments"]) for c in said["message"].get("tool_calls", [])
        ]
        assert told == wanted


def _built(said: dict[str, Any]) -> dict[str, Any]:
    return ChatCompletionChunk.model_validate(said).__dict__


def test_usage_comes_last_and_only_for_those_who_asked():
    """`include_usage` is a client's choice, also for an answer that comes out of a cache."""
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE}
    whole["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
    first, last = unfold(chunk_of(whole))
    assert (first.usage_only, first.silent, b"prompt_tokens" in first.data) == (False, False, False)
    assert (last.usage_only, last.silent, last.usage) == (True, True, Usage(9, 3))
    assert json.loads(last.data[6:])["choices"] == []


def test_a_whole_answer_folds_to_itself():
    """Callers need not ask which of the two they hold."""
    chunk = Chunk(b'{"id":"c"}')
    assert fold([chunk]) is chunk


def test_pieces_of_tool_calls_become_calls():
    """Arguments come in pieces, several calls beside each other."""
    function = {"name": "f", "arguments": ""}
    whole = folded(
        event(
            role="assistant",
            content=None,
            tool_calls=[{"index": 0, "id": "a", "type": "function", "function": function}],
        ),
        event(tool_calls=[{"index": 0, "function": {"arguments": '{"x"'}}]),
        event(tool_calls=[{"index": 1, "id": "b", "type": "function", "function": function}]),
        event(
            tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}, {"index": 1, "function": {"arguments": "{}"}}]
        ),
        event(finish="tool_calls"),
    )
    calls = whole["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["function"]["arguments"], "index" in c) for c in calls] == [
        ("a", '{"x":1}', False),
        ("b", "{}", False),
    ]


def test_what_is_said_again_is_not_joined_to_itself():
    """Some repeat a call's type with every piece: `functionfunction` is none."""
    function = {"name": "f", "arguments": "{"}
    whole = folded(
        event(role="assistant", tool_calls=[{"index": 0, "id": "a", "type": "function", "function": function}]),
        event(tool_calls=[{"index": 0, "type": "function", "function": {"arguments": "}"}}], finish="tool_calls"),
    )
    (call,) = whole["choices"][0]["message"]["tool_calls"]
    assert call == {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_choices_that_come_mixed_are_told_apart():
    """With `n`, the events of several answers come in any order."""
    whole = folded(
        event(choice=1, role="assistant", content="B"),
        event(choice=0, role="assistant", content="A"),
        event(choice=1, content="b", finish="stop"),
        event(choice=0, content="a", finish="length"),
    )
    said = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in whole["choices"]]
    assert said == [(0, "Aa", "length"), (1, "Bb", "stop")]


def test_unknown_fields_of_a_delta_are_kept():
    """A vendor's reasoning under whatever name, its numbers and its lists: text grows, of the rest the last counts."""
    whole = folded(
        event(role="assistant", reasoning_content="a", score=1, marks=[1]),
        event(reasoning_content="b", score=2, marks=[2], content="x"),
        event(finish="stop"),
    )
    message = whole["choices"][0]["message"]
    assert (message["reasoning_content"], message["score"], message["marks"]) == ("ab", 2, [1, 2])


def test_what_a_translator_streams_folds_to_what_it_says_whole():
    """One writer, two forms: both must tell the same."""
    events = [
        Began("id1", "m"),
        Thought("hm", signature="sig"),
        Said("a"),
        Said("b"),
        Cited("https://a", "A"),
        Cited("https://b"),
        ToolBegan(0, "t", "f"),
        ToolArgued(0, "{}"),
        Ended("tool_calls"),
        Counted(Usage(1, 2)),
    ]
    streamed = ChatWriter("x", "m", 1).stream(events)
    assert folded(*streamed) == json.loads(ChatWriter("x", "m", 1).whole(events).data)


def test_a_stream_that_says_nothing_is_no_answer():
    """Nothing may be cached of it."""
    with pytest.raises(ValueError, match="without choices"):
        fold([])
    with pytest.raises(ValueError, match="without choices"):
        unfold(Chunk(b'{"error":{}}'))
