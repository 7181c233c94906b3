"""Answers on the Responses surface: what a client that reads events, or the whole response, can rely on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.usage import Usage
from gateway.wire.events import Began, Cited, Counted, Ended, Event, Refused, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.responses_carrier import Carrier, unseal
from tests.wire.responses import PATCH, TICKETS, WEATHER, asked, read, streamed, writer

SDK_EVENT = TypeAdapter(ResponseStreamEvent)
SDK_RESPONSE = TypeAdapter(Response)
ENCRYPTED = ["reasoning.encrypted_content"]

BEGAN = Began("upstream-1", "claude")
EVERYTHING: list[Event] = [
    BEGAN,
    Thought("Let me "),
    Thought("see."),
    Thought(signature="sig"),
    Said("Look"),
    Said(" here"),
    Cited("https://example.org", "Example"),
    Refused("No."),
    ToolBegan(0, "call_a", "weather"),
    ToolArgued(0, '{"city":'),
    ToolArgued(0, '"Rome"}'),
    ToolBegan(1, "call_b", "apply_patch"),
    ToolArgued(1, '{"input":"*** Begin'),
    ToolArgued(1, ' Patch"}'),
    Ended("tool_calls"),
    Counted(Usage(9, 5, cached_tokens=4, reasoning_tokens=2)),
]


# ── Order ────────────────────────────────────────────────────────────────────────────────────────────────────────

DONE = {"output_text": "text", "refusal": "refusal", "reasoning_summary_text": "text"}
CALLS = {"function_call_arguments": "arguments", "custom_tool_call_input": "input"}


def check_order(events: list[dict[str, Any]]) -> None:
    """Fail unless the events come in an order, and say of each other, what OpenAI's do."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] in ("response.completed", "response.incomplete", "response.failed")
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    items: dict[int, dict[str, Any]] = {}
    done: dict[int, dict[str, Any]] = {}
    parts: dict[tuple[int, int], str] = {}
    for event in events[2:-1]:
        index = event["output_index"]
        assert index not in done, "nothing comes behind an item that is done"
        match event["type"].removeprefix("response.").rpartition("."):
            case ("output_item", _, "added"):
                assert index == len(items)
                items[index] = event["item"]
            case ("output_item", _, "done"):
                done[index] = event["item"]
                assert {k: event["item"].get(k) for k in ("id", "type", "call_id", "name")} == {
                    k: items[index].get(k) for k in ("id", "type", "call_id", "name")
                }
                assert not [place for place in parts if place[0] == index], "its parts are done before it is"
            case (name, _, what):
                assert event["item_id"] == items[index]["id"]
                place = (index, event.get("content_index", event.get("summary_index", 0)))
                if what == "added" and name.endswith("_part"):
                    assert place not in parts
                    parts[place] = ""
                elif what == "delta":
                    parts[place] = parts.get(place, "") + event["delta"]
                elif what == "done" and name.endswith("_part"):
                    del parts[place]
                elif what == "done":
                    said = parts[place] if name in DONE else parts.pop(place, "")
                    assert event[DONE.get(name) or CALLS[name]] == said, "what is done is what the deltas said"
    assert done == dict(enumerate(events[-1]["response"]["output"]))


words = st.text(max_size=8)
thoughts = st.builds(Thought, words, st.sampled_from(["", "sig"])) | st.builds(Thought, redacted=words)


@st.composite
def answers(draw) -> list[Event]:
    """Answers of any shape, calls whose arguments come by turns among them."""
    told: list[Event] = [BEGAN]
    left: dict[int, list[str]] = {}
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["said", "thought", "refused", "cited", "tool", "argued"]), max_size=14)):
        if kind == "tool":
            name = draw(st.sampled_from(["weather", "apply_patch", "tickets__find", "unknown"]))
            told.append(ToolBegan(calls, f"call_{calls}", name, draw(st.sampled_from(["", "sig"]))))
            arguments = json.dumps({"input": draw(words)})
            cut = draw(st.integers(0, len(arguments)))
            left[calls] = [arguments[:cut], arguments[cut:]]
            calls += 1
        elif kind == "argued" and left:
            index = draw(st.sampled_from(sorted(left)))
            told.append(ToolArgued(index, left[index].pop(0)))
            left = {index: pieces for index, pieces in left.items() if pieces}
        elif kind != "argued":
            kinds = {
                "said": st.builds(Said, words),
                "thought": thoughts,
                "refused": st.builds(Refused, words),
                "cited": st.builds(Cited, words),
            }
            told.append(draw(kinds[kind]))
    told += [ToolArgued(index, piece) for index, pieces in left.items() for piece in pieces]
    end = draw(st.permutations([Ended(draw(st.sampled_from(["stop", "length", "content_filter"]))), Counted(Usage(1))]))
    return [*told, *end]


@given(events=answers(), include=st.sampled_from([None, ENCRYPTED]))
def test_every_answer_is_told_in_order_and_whole_as_it_is_streamed(events, include):
    """Clients put items together by their place: an event out of order crashes one, and is lost on another."""
    fields = {"tools": [PATCH, WEATHER, TICKETS], "include": include}
    said = read(streamed(events, **fields))
    check_order(said)
    assert json.loads(writer(**fields).whole(events).data) == said[-1]["response"]


@given(events=answers())
def test_calls_keep_their_own_arguments_however_they_are_mixed(events):
    """Upstreams tell parallel calls by turns; the arguments of one in another would be acted upon."""
    wanted: dict[str, str] = {event.id: "" for event in events if isinstance(event, ToolBegan)}
    for event in events:
        if isinstance(event, ToolArgued):
            wanted[f"call_{event.index}"] += event.fragment
    output = json.loads(writer().whole(events).data)["output"]
    assert {item["call_id"]: item["arguments"] for item in output if item["type"] == "function_call"} == wanted


def test_a_call_is_done_as_soon_as_the_next_begins():
    """Agents start a tool when its item is done, while the answer goes on."""
    said = read(streamed(EVERYTHING))
    types = [(event["type"], event.get("output_index")) for event in said]
    assert types.index(("response.output_item.done", 2)) < types.index(("response.output_item.added", 3))


# ── What the official SDK requires ───────────────────────────────────────────────────────────────────────────────


def test_every_event_has_all_that_the_official_types_require():
    """Clients in typed languages are generated from the same specification, and refuse what lacks a field."""
    fields = {"tools": [PATCH, WEATHER, TICKETS], "include": ENCRYPTED, "metadata": {"a": "b"}}
    events = read(streamed(EVERYTHING, **fields))
    assert events
    SDK_RESPONSE.validate_json(writer(**fields).whole(EVERYTHING).data)
    for event in events:
        SDK_EVENT.validate_python(event)


def test_the_response_says_its_request_again_as_far_as_it_is_in_effect():
    """A client sees that a tool was left out, and that a long prompt is not cut, where it looks for the settings."""
    said = json.loads(
        writer(
            instructions="Be brief.",
            temperature=0.5,
            parallel_tool_calls=False,
            reasoning={"effort": "low"},
            text={"verbosity": "low"},
            tools=[WEATHER, {"type": "web_search"}],
            conversation="conv_1",
            truncation="auto",
            max_output_tokens=None,
        )
        .whole([BEGAN, Said("Hi"), Ended("stop")])
        .data
    )
    wanted = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tools": [WEATHER],
        "conversation": {"id": "conv_1"},
        "truncation": "disabled",
        "max_output_tokens": None,
        "tool_choice": "auto",
        "model": "claude",
        "metadata": {},
    }
    assert {name: said[name] for name in wanted} == wanted


# ── Ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_an_answer_that_was_cut_is_incomplete_and_so_is_its_last_item(finish, status, details):
    """Helpers raise on an incomplete response; half an answer as a whole one would be believed."""
    *_, last = read(streamed([BEGAN, Thought("Hm."), Said("Once upon"), Ended(finish)]))
    assert last["type"] == f"response.{status}"
    assert (last["response"]["status"], last["response"]["incomplete_details"]) == (status, details)
    assert last["response"]["output"][-1]["status"] == status


def test_a_call_whose_arguments_are_whole_is_complete_though_the_answer_is_cut():
    """The limit fell into the other one, though both were still open."""
    calls = [ToolBegan(0, "a", "weather"), ToolBegan(1, "b", "weather"), ToolArgued(0, "{}"), ToolArgued(1, '{"ci')]
    output = json.loads(writer().whole([BEGAN, *calls, Ended("length")]).data)["output"]
    assert [(item["status"], item["arguments"]) for item in output] == [("completed", "{}"), ("incomplete", '{"ci')]


@pytest.mark.parametrize("last", [[Ended("stop"), Counted(Usage(3, 2))], [Counted(Usage(3, 2)), Ended("stop")]])
def test_usage_is_in_the_last_event_whichever_came_first(last):
    """Dialects differ in whether they count before they end; the response says both at once."""
    usage = read(streamed([BEGAN, Said("Hi"), *last]))[-1]["response"]["usage"]
    assert usage == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }


def test_an_upstream_that_does_not_count_leaves_usage_unknown():
    """Unknown is `null`, and never zero."""
    assert read(streamed([BEGAN, Said("Hi"), Ended("stop")]))[-1]["response"]["usage"] is None


def test_an_answer_that_was_not_said_to_end_has_no_last_event():
    """A cut stream must not look complete: clients ask again when `response.completed` is missing."""
    writes = writer()
    writes.stream([BEGAN, Said("Hi")])
    assert writes.end() == []


def test_an_answer_without_content_is_complete_and_empty():
    """Some models say nothing when there is nothing to say."""
    *_, last = read(streamed([BEGAN, Said(""), Ended("stop")]))
    assert (last["type"], last["response"]["output"]) == ("response.completed", [])


# ── Tools and reasoning ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "input"),
    [('{"input":"a\\nb"}', "a\nb"), ("just text", "just text"), ('{"patch":"x"}', '{"patch":"x"}'), ("", "")],
)
def test_a_custom_tool_is_called_with_its_input(arguments, input):
    """Codex edits files by such a tool; a model that puts its input elsewhere is told so by the tool, not by us."""
    call = [ToolBegan(0, "call_a", "apply_patch"), ToolArgued(0, arguments)]
    said = read(streamed([BEGAN, *call, Ended("tool_calls")], tools=[PATCH]))
    (item,) = said[-1]["response"]["output"]
    assert (item["type"], item["name"], item["call_id"], item["input"]) == (
        "custom_tool_call",
        "apply_patch",
        "call_a",
        input,
    )
    assert [event["delta"] for event in said if event["type"].endswith("delta")] == [input]


def test_a_tool_of_a_namespace_is_called_by_its_own_name():
    """The longer name is between us and the upstream."""
    (item,) = json.loads(
        writer(tools=[TICKETS]).whole([BEGAN, ToolBegan(0, "a", "tickets__find"), Ended("tool_calls")]).data
    )["output"]
    assert (item["name"], item["namespace"]) == ("find", "tickets")


def test_what_has_to_come_back_is_shown_to_those_who_asked_and_kept_in_any_case():
    """Without it Anthropic and Gemini refuse the next turn of tools; who keeps no state has to hold it for us."""
    events: list[Event] = [
        BEGAN,
        Thought("Hm."),
        Thought(signature="sig"),
        Thought(redacted="secret"),
        Thought("So."),
        ToolBegan(0, "call_a", "weather", "gemini"),
        ToolArgued(0, "{}"),
        Ended("tool_calls"),
    ]
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
    ]
    wanted = Carrier("So.", blocks, {"call_a": "gemini"})
    shown = json.loads(writer(include=ENCRYPTED).whole(events).data)["output"][0]
    assert [part["text"] for part in shown["summary"]] == ["Hm.", "So."], "a part is a block"
    assert unseal(shown["encrypted_content"]) == wanted
    kept = writer(keeps=True).whole(events)
    assert "encrypted_content" not in json.loads(kept.data)["output"][0]
    assert unseal(json.loads(kept.answer)["output"][0]["encrypted_content"]) == wanted
    assert writer().whole(events).answer == b"", "what is not kept is not written twice"


# ── Chunks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_chunks_say_what_accounting_needs():
    """The first pieces commit to nothing; text and what is unseen are counted; usage costs the client no bytes."""
    writes = writer()
    (begun,) = writes.stream([BEGAN])
    (said,) = writes.stream([Said("Hi"), Thought("Hm")])
    (counted,) = writes.stream([Counted(Usage(3, 2))])
    (ended,) = writes.stream([Ended("stop")])
    (last,) = writes.end()
    assert (begun.silent, said.silent, said.text, said.unseen) == (True, False, "Hi", 2)
    assert (counted.data, counted.usage, counted.usage_only, counted.silent) == (b"", Usage(3, 2), True, True)
    assert (ended.silent, last.usage, last.finish_reason) == (False, Usage(3, 2), "stop")


def test_a_request_is_written_before_anything_is_known_of_the_answer():
    """An upstream that says nothing of itself first still has its events in order."""
    said = read(streamed([Said("Hi"), Ended("stop")]))
    check_order(said)
    assert said[-1]["response"]["model"] == asked().get("model")
