"""An event of an upstream that cannot be read: skipped and told where people read, an end where programs do."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.secret import Secret
from gateway.providers.anthropic import AnthropicOptions
from gateway.providers.bedrock import BedrockOptions
from gateway.providers.gemini import GeminiOptions
from gateway.providers.openai import OpenAIOptions
from gateway.providers.skipping import MOST_SKIPPED, NOTE
from tests import frames
from tests.providers.test_golden import Case, attempt, check_chunks, each_stream, said

PROVIDERS = {
    "openai": OpenAIOptions(api_key=Secret("k")).build("openai"),
    "anthropic": AnthropicOptions(api_key=Secret("k")).build("anthropic"),
    "gemini": GeminiOptions(api_key=Secret("k")).build("gemini"),
    "bedrock": BedrockOptions(api_key=Secret("k"), region="us-east-1").build("bedrock"),
}
each_dialect = pytest.mark.parametrize("dialect", PROVIDERS)
BAD = b'data: {"id":"c1","choi\n\n'
BAD_FRAME = frames.message("event", "contentBlockDelta", b'{"contentBlockIndex":0,"del')


def sse(*events: dict[str, Any]) -> list[bytes]:
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events]


def openai(*deltas: dict[str, Any], finish: str = "stop") -> list[bytes]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    last = {"index": 0, "delta": {}, "finish_reason": finish}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    return [*sse(*({**head, "choices": [choice]} for choice in [*choices, last])), b"data: [DONE]\n\n"]


def anthropic(*blocks: dict[str, Any], stop: str = "end_turn") -> list[bytes]:
    begun = {"id": "c1", "type": "message", "model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}
    return sse(
        {"type": "message_start", "message": begun},
        *blocks,
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    )


def gemini(*parts: dict[str, Any]) -> list[bytes]:
    last = {"content": {"parts": []}, "finishReason": "STOP"}
    candidates = [{"content": {"parts": [part]}} for part in parts]
    return sse(*({"candidates": [candidate], "responseId": "c1"} for candidate in [*candidates, last]))


def bedrock(*deltas: tuple[str, dict[str, Any]], stop: str = "end_turn") -> list[bytes]:
    last = [("messageStop", {"stopReason": stop}), ("metadata", {"usage": {"inputTokens": 9, "outputTokens": 2}})]
    events = [("messageStart", {"role": "assistant"}), *deltas, *last]
    return [frames.message("event", name, json.dumps(said).encode()) for name, said in events]


def delta(said: dict[str, Any], index: int = 0) -> tuple[str, dict[str, Any]]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": said}


def piece(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


TEXTS = {
    "openai": openai({"content": "one "}, {"content": "two "}, {"content": "three"}),
    "anthropic": anthropic(piece("one "), piece("two "), piece("three")),
    "gemini": gemini({"text": "one "}, {"text": "two "}, {"text": "three"}),
    "bedrock": bedrock(delta({"text": "one "}), delta({"text": "two "}), delta({"text": "three"})),
}
FIRST = {"openai": 0, "anthropic": 1, "gemini": 0, "bedrock": 1}
"""Which event says "one"."""


def read(dialect: str, events: list[bytes], **request: Any) -> list[Chunk]:
    reader = PROVIDERS[dialect].reader(attempt({"stream": True, "messages": [], **request}, "m"))
    chunks: list[Chunk] = []
    for event in events:
        chunks += reader.feed(event)
        if reader.finished:
            break
    return chunks + reader.end()


def without(events: list[bytes], lost: int, bad: bytes | None = None) -> list[bytes]:
    bad = bad or (BAD if events[0].startswith((b"data:", b"event:")) else BAD_FRAME)
    return [*events[:lost], bad, *events[lost + 1 :]]


def bad_for(dialect: str) -> bytes:
    return BAD_FRAME if dialect == "bedrock" else BAD


@each_dialect
def test_a_text_may_miss_a_word_if_it_says_so(dialect):
    """One bad line of a proxy is no reason to lose a paid answer; to hide it is."""
    chunks = read(dialect, without(TEXTS[dialect], FIRST[dialect] + 1))
    assert "".join(chunk.text for chunk in chunks) == "one three"
    assert "".join(chunk.finish_reason for chunk in chunks) == "stop"
    assert [chunk.skipped for chunk in chunks if NOTE in chunk.data] == [1]
    assert sum(chunk.skipped for chunk in chunks) == 1


@each_dialect
def test_a_skip_commits_to_nothing(dialect):
    """As long as nothing was said, another deployment may answer."""
    reader = PROVIDERS[dialect].reader(attempt({"stream": True, "messages": []}, "m"))
    assert [chunk.silent for chunk in reader.feed(bad_for(dialect))] == [True]
    with pytest.raises(Unreachable, match="nothing that can be read") as raised:
        reader.end()
    assert raised.value.retryable


@each_dialect
def test_a_stream_of_nothing_else_is_given_up(dialect):
    """It need not come to its end: it may have none."""
    reader = PROVIDERS[dialect].reader(attempt({"stream": True, "messages": []}, "m"))
    reader.feed(bad_for(dialect) * MOST_SKIPPED)
    with pytest.raises(Unreachable, match="cannot be read"):
        reader.feed(bad_for(dialect))


@each_dialect
@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_json_that_was_asked_for_misses_nothing(dialect, kind):
    """Half of an object may be another object, and nobody reads the comment."""
    schema = {"name": "a", "schema": {"type": "object"}}
    with pytest.raises(Unreachable, match="cannot be read"):
        read(
            dialect,
            without(TEXTS[dialect], FIRST[dialect] + 1),
            response_format={"type": kind, "json_schema": schema},
        )
    assert read(dialect, without(TEXTS[dialect], FIRST[dialect] + 1), response_format={"type": "text"})


CALL = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}
ARGUED = {"index": 0, "function": {"arguments": '{"a":1}'}}
BLOCK = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
CALLS = {
    "openai": openai({"content": "I "}, {"tool_calls": [CALL]}, {"tool_calls": [ARGUED]}, finish="tool_calls"),
    "legacy": openai(
        {"content": "I "},
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        finish="function_call",
    ),
    "anthropic": anthropic(
        piece("I "),
        {"type": "content_block_start", "index": 1, "content_block": BLOCK},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_stop", "index": 1},
        stop="tool_use",
    ),
    "gemini": gemini({"text": "I "}, {"functionCall": {"name": "f", "args": {}}}),
    "bedrock": bedrock(
        delta({"text": "I "}),
        ("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
        delta({"toolUse": {"input": "{}"}}, 1),
        ("contentBlockStop", {"contentBlockIndex": 1}),
        stop="tool_use",
    ),
}


@pytest.mark.parametrize("dialect", CALLS)
def test_an_answer_that_calls_a_tool_misses_nothing(dialect):
    """Neither behind the call nor before: what was lost may be the call, its beginning or its arguments."""
    events, provider = CALLS[dialect], "openai" if dialect == "legacy" else dialect
    assert not sum(chunk.skipped for chunk in read(provider, events))
    finishes = {"openai": 1, "legacy": 1, "anthropic": 1, "gemini": 0, "bedrock": 1}[
        dialect
    ]  # what follows the last word needs none
    for lost in range(len(events) - finishes):
        with pytest.raises(UpstreamFailed):
            read(provider, without(events, lost), tools=[{"type": "function", "function": {"name": "f"}}])


@pytest.mark.parametrize("dialect", ["openai", "legacy", "anthropic", "bedrock"])
def test_a_call_that_lost_a_piece_goes_no_further(dialect):
    """A client may act on what it has so far."""
    provider = PROVIDERS["openai" if dialect == "legacy" else dialect]
    reader = provider.reader(attempt({"stream": True, "messages": []}, "m"))
    begins = next(at for at, event in enumerate(CALLS[dialect]) if b'"name"' in event)
    reader.feed(b"".join(CALLS[dialect][: begins + 1]))
    with pytest.raises(Unreachable, match="cannot be read"):
        reader.feed(bad_for(dialect))
    assert reader.finished


@each_dialect
def test_why_an_answer_ended_is_not_guessed(dialect):
    """A lost finish may have been `length`: the rest of the answer is missing, and looks whole."""
    events = TEXTS[dialect]
    finish = next(at for at, event in enumerate(events) if b"stop" in event.lower() and b"[DONE]" not in event)
    with pytest.raises(UpstreamFailed):
        read(dialect, without(events, finish))


def test_behind_its_end_an_answer_has_nothing_to_lose():
    """What is bad there is the usage, or half an event of a connection that broke."""
    *events, done = CALLS["openai"]
    chunks = read("openai", [*events, BAD, done])
    assert [chunk.skipped for chunk in chunks if chunk.skipped] == [1]
    assert not sum(chunk.skipped for chunk in read("openai", [*events, BAD[:-2]]))
    *events, stop = CALLS["anthropic"]
    assert [chunk.skipped for chunk in read("anthropic", [*events, BAD, stop]) if chunk.skipped] == [1]


def test_half_an_event_of_a_stream_that_is_cut_is_not_skipped():
    """It was lost with the rest, which is the graver thing to say."""
    for dialect, events in TEXTS.items():
        with pytest.raises(UpstreamFailed, match="broke off"):
            read(dialect, [*events[: FIRST[dialect] + 1], bad_for(dialect)[:-2]])


def test_half_of_what_was_used_is_not_what_was_used():
    """Anthropic says the prompt's tokens first: without that event they are estimated, not nothing."""
    chunks = read("anthropic", without(TEXTS["anthropic"], 0))
    assert "".join(chunk.text for chunk in chunks) == "one two three"
    assert not any(chunk.usage for chunk in chunks)


def test_half_an_event_is_not_believed():
    """Its first choice ends, its second is nonsense: the client never saw that end."""
    *events, stop, done = TEXTS["openai"]
    odd = stop.replace(b'"stop"}]', b'"stop"}, {"index": 1, "delta": {"tool_calls": [{"function": 7}]}}]')
    assert odd != stop
    with pytest.raises(UpstreamFailed):
        read("openai", [*events, odd, done])


def test_bytes_that_are_no_text_are_not_passed_on_within_fields_that_nobody_reads():
    """Official clients decode a line before they parse it."""
    events = TEXTS["openai"]
    chunks = read("openai", [*events[:2], events[2].replace(b'"m"', b'"m", "new": "\xff"'), *events[3:]])
    assert not any(b"\xff" in chunk.data for chunk in chunks)
    assert sum(chunk.skipped for chunk in chunks) == 1


@each_stream
def test_one_bad_event_anywhere_is_told_or_ends_the_answer(folder: Path):
    """Of every golden stream, each event in turn."""
    case = Case(folder)
    whole = case.replay([case.answer])
    for at, event in enumerate(case.events):
        if not case.framed and b"data:" not in event:
            continue
        outcome = case.replay(without(case.events, at, BAD_FRAME if case.framed else BAD))
        if "error" in outcome or outcome == whole:  # it stood behind the end, or was bad already
            continue
        assert outcome.get("skipped", 0) == 1 + whole.get("skipped", 0), at
        if "error" not in whole:
            assert outcome["finish_reason"] == whole["finish_reason"], at
        if whole["finish_reason"] == "tool_calls":
            assert said(outcome) == said(whole), at
        check_chunks(outcome["chunks"], complete=True)


ODD = [None, True, 0, -1, 1.5, 10**30, "", "x", [], {}, [7], [[]], [{}], {"a": 1}, [None], {"index": "x"}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each value within `value`."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from places(child, (*path, key))


def put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """Return a copy of `value` with `odd` at `path`."""
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], odd)
    return copy


def shapes(case: Case) -> Iterator[tuple[Any, Callable[[bytes], bytes]]]:
    """Yield the JSON of each event, and what makes the stream that says other JSON in its place."""
    lines = case.lines if case.framed else case.answer.split(b"\n")
    for at, line in enumerate(lines):
        kind, name, data = frames.split_line(line) if case.framed else ("", "", line.removeprefix(b"data:"))
        try:
            value = json.loads(data)
        except ValueError:
            continue
        if case.framed:
            yield value, partial(_with_frame, case.events, at, kind, name)
        else:
            yield value, partial(_with_line, lines, at)


def _with_frame(events: list[bytes], at: int, kind: str, name: str, data: bytes) -> bytes:
    return b"".join([*events[:at], frames.message(kind, name, data), *events[at + 1 :]])


def _with_line(lines: list[bytes], at: int, data: bytes) -> bytes:
    return b"\n".join([*lines[:at], b"data: " + data, *lines[at + 1 :]])


@each_stream
def test_no_shape_of_an_event_is_a_crash_of_ours(folder: Path):
    """Any value of any event may be any other: a client gets an answer or a sentence, never a 500."""
    case, dice = Case(folder), random.Random(folder.name)
    replayed = 0
    for value, stream_of in shapes(case):
        for path in places(value):
            case.replay([stream_of(json.dumps(put(value, path, dice.choice(ODD))).encode())])
            replayed += 1
    assert replayed
