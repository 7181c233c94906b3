"""What a Messages client is sent: streams in the order that official clients insist on, messages, errors, counts."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Body
from gateway.core.errors import (
    BadRequest,
    Busy,
    Forbidden,
    GatewayError,
    LimitReached,
    Overloaded,
    Rejected,
    TimedOut,
    TooLarge,
    Unauthorized,
    UnknownModel,
    Unreachable,
)
from gateway.core.usage import Usage
from gateway.providers.anthropic import MessageDecoder
from gateway.wire import sse
from gateway.wire.events import Began, Cited, Counted, Ended, Event, Refused, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.messages import MessagesSurface, MessagesWriter, count_answer, count_tokens, error_body, error_event
from gateway.wire.messages_types import GOOGLE, UNSIGNED
from tests.calls import a_body, a_call

BEGAN = Began("msg_1", "claude-x")
USAGE = Usage(100, 20, cached_tokens=60, cache_write_tokens=30, reasoning_tokens=5)
TOLD = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 60,
    "output_tokens": 20,
    "output_tokens_details": {"thinking_tokens": 5},
}
DELTAS = {"text": ("text_delta", "citations_delta"), "thinking": ("thinking_delta", "signature_delta")}


def streamed(*batches: list[Event]) -> list[dict[str, Any]]:
    """Return the events of the stream that tells `batches`, each of which came at once."""
    writer = MessagesWriter("1", "fast")
    chunks = [chunk for batch in batches for chunk in writer.stream(batch)] + writer.end()
    return in_order(b"".join(chunk.data for chunk in chunks))


def in_order(data: bytes) -> list[dict[str, Any]]:
    """Return the events of a whole stream, each of which stands where it may."""
    events = sse.Splitter().feed(data)
    said = [msgspec.json.decode(event.data, type=dict[str, Any]) for event in events]
    assert [event.name.decode() for event in events] == [event["type"] for event in said]
    types = [event["type"] for event in said]
    assert (types[0], types[-2:]) == ("message_start", ["message_delta", "message_stop"])
    open_block: dict[str, Any] | None = None
    index = -1
    for event in said[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert open_block is None
                open_block, index = event["content_block"], index + 1
            case "content_block_delta":
                assert open_block is not None
                assert event["delta"]["type"] in DELTAS.get(open_block["type"], ("input_json_delta",))
                assert open_block["type"] != "redacted_thinking"
            case "content_block_stop":
                assert open_block is not None
                open_block = None
            case other:
                raise AssertionError(f"{other} within the content")
        assert event["index"] == index
    assert open_block is None
    return said


def accumulated(said: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the message that the official helper makes of a stream."""
    message: dict[str, Any] = said[0]["message"]
    pieces: dict[int, str] = {}
    for event in said[1:]:
        match event["type"]:
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "content_block_delta":
                block, delta = message["content"][event["index"]], event["delta"]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "signature_delta":
                        block["signature"] = delta["signature"]
                    case "citations_delta":
                        block.setdefault("citations", []).append(delta["citation"])
                    case "input_json_delta":
                        pieces[event["index"]] = pieces.get(event["index"], "") + delta["partial_json"]
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for index, piece in pieces.items():
        message["content"][index]["input"] = json.loads(piece)
    return message


def whole(events: list[Event]) -> dict[str, Any]:
    return msgspec.json.decode(MessagesWriter("1", "fast").whole(events).data)


def read_back(data: bytes) -> list[Event]:
    decoder = MessageDecoder()
    events = [said for event in sse.Splitter().feed(data) for said in decoder.feed(event.data)]
    assert decoder.finished
    return events


def types(said: list[dict[str, Any]]) -> list[str]:
    """Return what a stream says, in short."""
    return [
        event.get("delta", {}).get("type") or event.get("content_block", {}).get("type") or event["type"]
        for event in said
    ]


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_says_an_answer_as_anthropic_does():
    """Reasoning, text, a call: block behind block, and usage with the reason for the end."""
    said = streamed(
        [BEGAN],
        [Thought("hm"), Thought(signature="c2ln"), Said("Let "), Said("me.")],
        [ToolBegan(0, "t1", "weather"), ToolArgued(0, '{"city":')],
        [ToolArgued(0, '"Ur"}')],
        [Ended("tool_calls"), Counted(USAGE)],
    )
    assert types(said) == [
        "message_start",
        *("thinking", "thinking_delta", "signature_delta", "content_block_stop"),
        *("text", "text_delta", "text_delta", "content_block_stop"),
        *("tool_use", "input_json_delta", "input_json_delta", "content_block_stop"),
        "message_delta",
        "message_stop",
    ]
    assert said[0]["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }
    assert said[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": TOLD,
    }


def test_tools_that_are_called_at_the_same_time_are_told_one_behind_the_other():
    """Clients have one open block; a piece of another one would be lost or raise."""
    said = streamed(
        [BEGAN, ToolBegan(0, "a", "f"), ToolBegan(1, "b", "g")],
        [ToolArgued(1, '{"x"'), ToolArgued(0, '{"y":{}')],
        [ToolArgued(0, "}"), ToolArgued(1, ":1}")],
        [Said("done"), Ended("tool_calls")],
    )
    assert accumulated(said)["content"] == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {"y": {}}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"x": 1}},
        {"type": "text", "text": "done"},
    ]


def test_a_call_is_told_as_it_grows():
    """A client shows what is written: the second call need not wait for the end, once the first one is whole."""
    writer = MessagesWriter("1", "fast")
    writer.stream([BEGAN, ToolBegan(0, "a", "f"), ToolArgued(0, '{"x":1}')])
    (chunk,) = writer.stream([ToolBegan(1, "b", "g"), ToolArgued(1, '{"y"')])
    assert b'"name":"g"' in chunk.data
    assert b"partial_json" in chunk.data


def test_input_that_goes_on_behind_its_end_is_an_error():
    """It cannot be said any more, and must not be lost: a tool would be called with half of it."""
    writer = MessagesWriter("1", "fast")
    writer.stream([BEGAN, ToolBegan(0, "a", "f"), ToolArgued(0, "{}"), ToolBegan(1, "b", "g")])
    assert writer.stream([ToolArgued(0, "\n")])[0].unseen == 1
    with pytest.raises(Unreachable):
        writer.stream([ToolArgued(0, '{"x":1}')])


def test_chunks_tell_what_accounts_and_clocks_need():
    """The beginning commits to nothing; what is written later was generated now."""
    writer = MessagesWriter("1", "fast")
    (first,) = writer.stream([BEGAN])
    (said,) = writer.stream([Said("Hi"), Thought("hm")])
    (waiting, used) = writer.stream([ToolBegan(0, "a", "f"), ToolBegan(1, "b", "gg"), Counted(USAGE)])
    (held,) = writer.stream([ToolArgued(1, "{}")])
    assert writer.stream([Ended("stop")]) == []
    (last,) = writer.end()
    assert (first.silent, first.text, first.unseen) == (True, "", 0)
    assert (said.silent, said.text, said.unseen) == (False, "Hi", 2)
    assert (waiting.unseen, used.usage, used.usage_only, used.silent, used.data) == (3, USAGE, True, True, b"")
    assert (held.data, held.unseen, held.silent) == (b"", 2, False)
    assert (last.usage, last.finish_reason, last.silent) == (USAGE, "stop", False)


def test_an_answer_that_says_nothing_is_still_a_message():
    """Some end at once, and clients wait for the end that they know."""
    assert types(streamed([BEGAN, Ended("stop")])) == ["message_start", "message_delta", "message_stop"]
    assert types(streamed([])) == ["message_start", "message_delta", "message_stop"]


def test_reasoning_that_nobody_signed_is_signed_by_us():
    """Clients expect a signature, and return the block; by ours it is known for what it is."""
    events: list[Event] = [BEGAN, Thought("hm"), Said("Hi"), Thought(signature="c2ln"), Ended("stop")]
    content = [
        {"type": "thinking", "thinking": "hm", "signature": UNSIGNED},
        {"type": "text", "text": "Hi"},
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
    ]
    assert whole(events)["content"] == accumulated(streamed(events))["content"] == content


def test_geminis_signature_travels_in_front_of_its_call():
    """Gemini wants it back with the call, and clients return reasoning, but no field that they do not know."""
    events: list[Event] = [BEGAN, ToolBegan(0, "a", "f", signature="c2ln"), Ended("tool_calls")]
    content = [
        {"type": "redacted_thinking", "data": f"{GOOGLE}c2ln"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
    ]
    assert whole(events)["content"] == accumulated(streamed(events))["content"] == content


def test_a_source_stands_at_its_text():
    """As web search has it; behind a call there is no text any more at which it could stand."""
    events: list[Event] = [BEGAN, Said("It is."), Cited("https://x.test", "X"), ToolBegan(0, "a", "f"), Cited("y")]
    content = accumulated(streamed(events))["content"]
    assert content == whole(events)["content"]
    assert [(cited["type"], cited["url"], cited["title"]) for cited in content[0]["citations"]] == [
        ("web_search_result_location", "https://x.test", "X")
    ]
    assert content[1:] == [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]


@pytest.mark.parametrize(
    ("events", "delta"),
    [
        ([Ended("stop")], {"stop_reason": "end_turn", "stop_sequence": None}),
        ([Ended("length")], {"stop_reason": "max_tokens", "stop_sequence": None}),
        ([Ended("content_filter")], {"stop_reason": "refusal", "stop_sequence": None}),
        ([ToolBegan(0, "a", "f"), Ended("stop")], {"stop_reason": "tool_use", "stop_sequence": None}),
        ([ToolBegan(0, "a", "f"), Ended("length")], {"stop_reason": "max_tokens", "stop_sequence": None}),
        (
            [Refused("I "), Refused("won't."), Ended("stop")],
            {
                "stop_reason": "refusal",
                "stop_sequence": None,
                "stop_details": {"type": "refusal", "category": None, "explanation": "I won't."},
            },
        ),
    ],
)
def test_why_an_answer_ends(events, delta):
    """Agents go on by it: a call that ends in anything but `tool_use` is not made."""
    assert streamed([BEGAN, *events])[-2]["delta"] == delta
    assert whole([BEGAN, *events]).items() >= delta.items()


def test_usage_that_nobody_said_is_estimated():
    """Clients crash without a number; what was guessed says so, and is not charged by this."""
    writer = MessagesWriter("1", "fast", prompt_tokens=50)
    beginning = writer.stream([BEGAN, Said("x" * 40), Ended("stop")])
    (last,) = writer.end()
    said = in_order(beginning[0].data + last.data)
    assert said[0]["message"]["usage"]["input_tokens"] == 50
    assert said[-2]["usage"].items() >= {"input_tokens": 50, "output_tokens": 10, "estimated": True}.items()
    assert last.usage is None


# ── Whole messages ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_message():
    """The same as a stream adds up to."""
    events: list[Event] = [BEGAN, Said("Hi"), ToolBegan(0, "a", "f"), ToolArgued(0, '{"x": 1}'), Ended("tool_calls")]
    chunk = MessagesWriter("1", "fast").whole([*events, Counted(USAGE)])
    assert msgspec.json.decode(chunk.data) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": TOLD,
    }
    assert (chunk.text, chunk.usage, chunk.finish_reason, chunk.unseen) == ("Hi", USAGE, "tool_calls", 9)


@pytest.mark.parametrize("fragment", ['{"x"', "[1]", "x"])
def test_a_call_with_what_is_no_object_is_no_answer(fragment):
    """`input` is an object: another attempt may do better, an empty one would call the tool with nothing."""
    with pytest.raises(Unreachable, match="called f"):
        whole([BEGAN, ToolBegan(0, "a", "f"), ToolArgued(0, fragment), Ended("tool_calls")])


def test_a_call_that_was_cut_is_not_made():
    """The answer ran out of tokens in the midst of it, and says so."""
    said = whole([BEGAN, Said("Hi"), ToolBegan(0, "a", "f"), ToolArgued(0, '{"x"'), Ended("length")])
    assert (said["content"], said["stop_reason"]) == ([{"type": "text", "text": "Hi"}], "max_tokens")


def test_ids_are_made_up_where_none_are_said():
    """Each call needs one, and no two of a conversation the same."""
    said = whole([ToolBegan(0, "", "f"), ToolBegan(1, "", "f"), Ended("tool_calls")])
    assert (said["id"], said["model"]) == ("msg_1", "fast")
    assert [block["id"] for block in said["content"]] == ["toolu_1_0", "toolu_1_1"]


# ── There and back ───────────────────────────────────────────────────────────────────────────────────────────────

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
usages = st.builds(
    lambda fresh, read, written, out, thought: Usage(fresh + read + written, out + thought, read, written, thought),
    *[st.integers(0, 99)] * 5,
)


@st.composite
def answers(draw) -> list[Event]:
    """An answer whose calls grow side by side, between its texts and thoughts."""
    lanes: list[list[Event]] = []
    for tool in range(draw(st.integers(0, 3))):
        given = msgspec.json.encode(draw(st.dictionaries(words, words, max_size=2))).decode()
        cut = draw(st.integers(0, len(given)))
        fragments = [fragment for fragment in (given[:cut], given[cut:]) if fragment]
        if given == "{}" and draw(st.booleans()):
            fragments = []
        lanes.append([ToolBegan(tool, f"t{tool}", draw(words), draw(st.sampled_from(["", "c2ln"])))])
        lanes[-1] += [ToolArgued(tool, fragment) for fragment in fragments]
    spoken = st.one_of(
        st.builds(Said, words),
        st.builds(Thought, words),
        st.builds(lambda said: Thought(signature=said), words),
        st.builds(lambda said: Thought(redacted=said), words),
        st.builds(Cited, words, words),
    )
    lanes.append(draw(st.lists(spoken, max_size=8)))
    events: list[Event] = [BEGAN]
    begun = 0  # calls begin in the order of their numbers
    while any(lanes):
        ready = [n for n, lane in enumerate(lanes) if lane and (n <= begun or n == len(lanes) - 1)]
        lane = draw(st.sampled_from(ready))
        begun = max(begun, lane + 1) if lane < len(lanes) - 1 else begun
        events.append(lanes[lane].pop(0))
    if draw(st.booleans()):
        events.append(Refused(draw(words)))
    last: list[Event] = [Ended(draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"])))]
    last += [Counted(draw(usages))] if draw(st.booleans()) else []
    return events + draw(st.permutations(last))


def essence(events: list[Event]) -> dict[str, Any]:
    """Return what events say, however they were cut and interleaved, as far as a message can say it."""
    blocks: list[list[Any]] = []
    tools: dict[int, list[Any]] = {}
    rest: dict[str, Any] = {"refusal": "", "usage": None}
    for event in events:
        last = blocks[-1] if blocks else ["none"]
        match event:
            case Began():
                rest["began"] = event
            case Said():
                if last[0] != "text":
                    blocks.append(last := ["text", "", []])
                last[1] += event.text
            case Cited() if last[0] != "tool":
                if last[0] != "text":
                    blocks.append(last := ["text", "", []])
                last[2].append(event)
            case Thought(redacted=data) if data:
                blocks.append(["redacted", data])
            case Thought():
                if last[0] != "thinking" or last[2]:
                    blocks.append(last := ["thinking", "", ""])
                last[1] += event.text
                last[2] += event.signature
            case ToolBegan():
                signature = event.signature
                if last[0] == "redacted" and last[1].startswith(GOOGLE):
                    signature = blocks.pop()[1].removeprefix(GOOGLE)
                tools[event.index] = ["tool", event.id, event.name, signature, ""]
                blocks.append(tools[event.index])
            case ToolArgued():
                tools[event.index][4] += event.fragment
            case Refused():
                rest["refusal"] += event.text
            case Ended():
                rest["reason"] = event.reason
            case Counted():
                rest["usage"] = event.usage
            case _:
                pass
    for block in blocks:
        if block[0] == "thinking":
            block[2] = "" if block[2] == UNSIGNED else block[2]
        if block[0] == "tool":
            block[4] = json.loads(block[4] or "{}")
    if tools and rest["reason"] == "stop":
        rest["reason"] = "tool_calls"
    if rest["refusal"]:
        rest["reason"] = "content_filter"
    return {**rest, "blocks": blocks}


@given(events=answers(), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_a_stream_is_read_back_as_what_was_said(events, cuts):
    """Written for a client, and read by our own reader of Anthropic's: whatever came at once, nothing is lost."""
    writer, bounds = MessagesWriter("1", "fast"), [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    chunks = [c for begin, end in pairwise(bounds) for c in writer.stream(events[begin:end])]
    chunks += writer.end()
    data = b"".join(chunk.data for chunk in chunks)
    in_order(data)
    said, read = essence(events), essence(read_back(data))
    assert read | {"usage": None} == said | {"usage": None}
    assert said["usage"] in (None, read["usage"])
    assert "".join(chunk.text for chunk in chunks) == "".join(e.text for e in events if isinstance(e, Said))


@given(events=answers())
def test_a_stream_adds_up_to_the_whole_message(events):
    """The two forms of one answer differ in nothing that a client could see."""
    assert accumulated(streamed(events)) == whole(events)


# ── Errors, counts, the surface ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (BadRequest("x"), "invalid_request_error"),
        (Unauthorized("x"), "authentication_error"),
        (Forbidden("x"), "permission_error"),
        (UnknownModel("x"), "not_found_error"),
        (TooLarge("x"), "request_too_large"),
        (LimitReached("x"), "rate_limit_error"),
        (Busy("x"), "rate_limit_error"),
        (Overloaded("x"), "overloaded_error"),
        (TimedOut("x"), "timeout_error"),
        (Unreachable("x"), "api_error"),
        (GatewayError("x"), "api_error"),
        (Rejected("x", status=422), "invalid_request_error"),
        (Rejected("x", status=402), "billing_error"),
        (Rejected("x", status=409), "conflict_error"),
    ],
)
def test_errors_are_anthropics(error, type):
    """Its SDKs take the status for the class, and show the type."""
    said = json.loads(error_body(error, "req_1"))
    assert (said["type"], said["request_id"], said["error"]["type"]) == ("error", "req_1", type)
    assert error_event(error, "req_1") == b"event: error\ndata: " + error_body(error, "req_1") + b"\n\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BadRequest("expected text", param="messages[0]"), "messages[0]: expected text"),
        (BadRequest("n is too many", param="n"), "n is too many"),
        (BadRequest("one is enough", param="n"), "n: one is enough"),
        (Rejected("9 > 8", status=400, code="context_length_exceeded"), "prompt is too long: 9 > 8"),
        (Rejected("Prompt is too long: 9", status=400, code="context_length_exceeded"), "Prompt is too long: 9"),
    ],
)
def test_an_error_says_what_it_is_about(error, message):
    """There is no `param` here; and Claude Code looks for the words by which Anthropic tells of too long a prompt."""
    assert json.loads(error_body(error, "req_1"))["error"]["message"] == message


def test_tokens_are_counted_by_rule_of_thumb():
    """System, conversation and tools: clients ask before they send, to know how full a context is."""
    body = a_body(system=None, messages=[{"role": "user", "content": "word " * 400}])
    assert 450 < count_tokens(body) < 550
    assert count_answer(body) == b'{"input_tokens":%d}' % count_tokens(body)
    system = a_body(system="word " * 400)
    tools = a_body(tools=[{"name": "f", "description": "word " * 400}])
    assert min(count_tokens(system), count_tokens(tools)) > 450
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    assert count_tokens(a_body(messages=[{"role": "user", "content": [picture]}])) < 2000
    assert count_tokens(Body()) == 0


def test_the_surface_joins_its_parts():
    """What the bridge between surfaces and providers asks for."""
    surface, call = MessagesSurface(), a_call(body=a_body(max_tokens=5))
    assert json.loads(surface.chat_body(call.body).raw)["max_completion_tokens"] == 5
    start = in_order(b"".join(chunk.data for chunk in surface.writer(call).end()))[0]["message"]
    assert (start["id"], start["model"]) == (f"msg_{call.id}", "fast")
    assert start["usage"]["input_tokens"] == count_tokens(call.body) > 0
    assert surface.error_body(BadRequest("x"), "r") in surface.error_event(BadRequest("x"), "r")
    assert surface.done == b""
