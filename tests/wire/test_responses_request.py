"""Requests of the Responses API as chat completions: nothing is lost in silence."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.wire.chat_request import chat_request
from gateway.wire.events import Began, Ended, Event, Refused, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.openai import ChatWriter
from gateway.wire.responses_carrier import Carrier, seal, unseal
from gateway.wire.responses_kept import follow_up, read_asked
from gateway.wire.responses_request import LEFT_OUT, REFUSED, chat_body
from tests.wire.responses import PATCH, TICKETS, WEATHER, asked, writer

USER = {"role": "user", "content": "Hello"}
CALL = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "a", "output": "Rain."}
CALLED = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}


def chat(body: Body) -> dict[str, Any]:
    """The chat completion request that asks for the same."""
    said = chat_body(body)
    chat_request(said.raw)  # every translator reads it
    assert {name: json.loads(bytes(raw)) for name, raw in said.fields.items()} == json.loads(said.raw)
    return json.loads(said.raw)


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    return chat(asked(input=list(items), **fields))["messages"]


# ── Conversations ────────────────────────────────────────────────────────────────────────────────────────────────

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "easy messages": (
        [USER, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}],
        [USER, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}],
    ),
    "system and developer messages, neighbours joined": (
        [{"role": "developer", "content": [{"type": "input_text", "text": "a"}]}, {"role": "system", "content": "b"}],
        [{"role": "system", "content": "a\n\nb"}],
    ),
    "text alone is plain": (
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
        [USER],
    ),
    "pictures and files": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "See", "cache_control": {"type": "ephemeral"}},
                    PICTURE,
                    {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See", "cache_control": {"type": "ephemeral"}},
                    SHOWN,
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
                ],
            }
        ],
    ),
    "a refusal in the history": (
        [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
        [{"role": "assistant", "content": None, "refusal": "No."}],
    ),
    "two messages in a row are two turns": (
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
    ),
    "text and parallel calls are one turn": (
        [{"role": "assistant", "content": "a"}, CALL, {**CALL, "call_id": "b"}, RESULT, {**RESULT, "call_id": "b"}],
        [
            {"role": "assistant", "content": "a", "tool_calls": [CALLED, {**CALLED, "id": "b"}]},
            {"role": "tool", "tool_call_id": "a", "content": "Rain."},
            {"role": "tool", "tool_call_id": "b", "content": "Rain."},
        ],
    ),
    "calls behind results are a new turn": (
        [CALL, RESULT, {**CALL, "call_id": "b"}],
        [
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "a", "content": "Rain."},
            {"role": "assistant", "content": None, "tool_calls": [{**CALLED, "id": "b"}]},
        ],
    ),
    "custom tools": (
        [
            {"type": "custom_tool_call", "call_id": "a", "name": "apply_patch", "input": 'say "x"'},
            {"type": "custom_tool_call_output", "call_id": "a", "output": "done"},
        ],
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "apply_patch", "arguments": '{"input":"say \\"x\\""}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "done"},
        ],
    ),
    "tools of a namespace": (
        [{**CALL, "name": "find", "namespace": "tickets"}],
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{**CALLED, "function": {"name": "tickets__find", "arguments": "{}"}}],
            }
        ],
    ),
    "a picture that a tool returned is shown behind all results": (
        [
            CALL,
            {**CALL, "call_id": "b"},
            {**RESULT, "output": [{"type": "input_text", "text": "Taken."}, PICTURE]},
            {**RESULT, "call_id": "b"},
            USER,
        ],
        [
            {"role": "assistant", "content": None, "tool_calls": [CALLED, {**CALLED, "id": "b"}]},
            {"role": "tool", "tool_call_id": "a", "content": "Taken."},
            {"role": "tool", "tool_call_id": "b", "content": "Rain."},
            {"role": "user", "content": [{"type": "text", "text": "What the tool call a returned:"}, SHOWN]},
            USER,
        ],
    ),
    "reasoning of ours": (
        [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": seal(
                    Carrier(
                        blocks=[{"type": "thinking", "thinking": "Hm.", "signature": "s"}], signatures={"a": "gemini"}
                    )
                ),
            },
            CALL,
        ],
        [
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}],
                "tool_calls": [{**CALLED, "extra_content": {"google": {"thought_signature": "gemini"}}}],
            }
        ],
    ),
    "reasoning of ours without its summary": (
        [
            {"type": "reasoning", "summary": [], "encrypted_content": seal(Carrier("Hm."))},
            {"role": "assistant", "content": "a"},
        ],
        [{"role": "assistant", "content": "a", "reasoning_content": "Hm."}],
    ),
    "reasoning of another, which only they can read": (
        [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": "gAAAAABmF0_x-y==",
            },
            {"role": "assistant", "content": "a"},
        ],
        [{"role": "assistant", "content": "a", "reasoning_content": "Hm."}],
    ),
    "reasoning of which nothing came": (
        [USER, {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}, USER],
        [USER, USER],
    ),
    "a search that OpenAI made": (
        [{"type": "web_search_call", "id": "ws_1", "status": "completed"}, USER],
        [USER],
    ),
}


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_items_become_messages(case):
    """A conversation goes on with any provider where another one left it."""
    items, wanted = CONVERSATIONS[case]
    assert messages(*items) == wanted


def test_instructions_stand_before_what_was_said_earlier():
    """They are not carried over from one response to the next: those of this request count, and come first."""
    before = [{"role": "user", "content": "Before"}, {"role": "assistant", "content": "Yes"}]
    body = asked(instructions="Be brief.", previous_response_id="resp_0")
    said = chat(follow_up(body, read_asked(body), [Raw(json.dumps(item).encode()) for item in before]))
    assert [message["content"] for message in said["messages"]] == ["Be brief.", "Before", "Yes", "Hello"]
    assert "previous_response_id" not in said


@pytest.mark.parametrize("foreign", ["gAAAAABmF0_x-y==", "", "e30=", "not base64 ☃", "W10="])
def test_what_is_not_ours_is_not_read_as_ours(foreign):
    """Clients move between providers in mid-conversation, and send back what the last one gave them."""
    assert unseal(foreign) is None


# ── A turn that comes back ───────────────────────────────────────────────────────────────────────────────────────

words = st.text(min_size=1, max_size=8)


@st.composite
def turns(draw) -> list[Event]:
    """Answers as upstreams give them: thoughts all signed or none, then text, refusal and calls in any order."""
    signed = draw(st.booleans())
    told: list[Event] = [Began("1", "m")]
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["thought", "said", "refused", "tool"]), min_size=1, max_size=8)):
        if kind == "thought":
            told += [Thought(word) for word in draw(st.lists(words, min_size=1, max_size=3))]
            told += [Thought(signature=draw(words))] if signed else []
            told += [Thought(redacted=draw(words))] if signed and draw(st.booleans()) else []
        elif kind == "tool":
            custom = draw(st.booleans())
            name = "apply_patch" if custom else draw(st.sampled_from(["weather", "tickets__find"]))
            told.append(ToolBegan(calls, f"call_{calls}", name, draw(st.sampled_from(["", "sig"]))))
            arguments = {"input": draw(words)} if custom else {"city": draw(words)}
            told.append(ToolArgued(calls, json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)))
            calls += 1
        else:
            told.append((Said if kind == "said" else Refused)(draw(words)))
    return [*told, Ended("stop")]


def as_message(said: dict[str, Any]) -> dict[str, Any]:
    """A message without what is not there, and with arguments read: how JSON is escaped does not matter."""
    message = {name: value for name, value in said.items() if value}
    for call in message.get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return message


@given(events=turns(), stored=st.booleans())
def test_an_answer_that_comes_back_is_the_same_turn(events, stored):
    """Whether the client keeps the items or the gateway does: the upstream sees what it once said."""
    wanted = as_message(json.loads(ChatWriter("1", "m", 0).whole(events).data)["choices"][0]["message"])
    tools = {"tools": [PATCH, WEATHER, TICKETS]}
    chunk = writer(keeps=stored, **tools, include=[] if stored else ["reasoning.encrypted_content"]).whole(events)
    items = json.loads(chunk.answer if stored else chunk.data)["output"]
    said = messages(USER, *items, USER, **tools)[1:-1]
    spoke = wanted.keys() & {"content", "refusal", "tool_calls"}
    assert [as_message(message) for message in said] == ([wanted] if spoke else [])


# ── Fields ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fields_get_the_names_that_chat_completions_have():
    """What is the same in both passes as it came, vendors' own parameters included."""
    body = asked(
        stream=True,
        temperature=0.5,
        top_p=0.9,
        service_tier="flex",
        user="u",
        safety_identifier="s",
        top_k=5,
        max_output_tokens=10,
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    )
    assert chat(body) == {
        "model": "fast",
        "messages": [USER],
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "service_tier": "flex",
        "user": "u",
        "safety_identifier": "s",
        "top_k": 5,
        "max_completion_tokens": 10,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    }


@pytest.mark.parametrize(
    ("form", "wanted"), [({"type": "text"}, None), ({"type": "json_object"}, {"type": "json_object"}), (None, None)]
)
def test_other_forms_of_answers(form, wanted):
    """Plain text is what is given anyway."""
    assert chat(asked(text={"format": form})).get("response_format") == wanted


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_about_openai_alone_is_not_sent_on(name):
    """Servers that are strict refuse what they do not know, and Codex sends these with every request."""
    assert name not in chat(asked(**{name: ["x"] if name == "include" else "x"}))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_with_the_cure(name):
    """A client that relies on it must know; one that says that it does not want it may go on."""
    assert name not in chat(asked(**{name: None}))
    with pytest.raises(BadRequest, match=REFUSED[name]) as caught:
        chat_body(asked(**{name: {"id": "x"}}))
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


# ── Tools ────────────────────────────────────────────────────────────────────────────────────────────────────────

FUNCTION = {"type": "function", "function": {key: value for key, value in WEATHER.items() if key != "type"}}


def test_tools_become_functions():
    """Grammars are told, since no other dialect can hold a model to one."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: ANY"}
    said = chat(asked(tools=[WEATHER, {**PATCH, "format": grammar}, TICKETS], parallel_tool_calls=False))
    weather, patch, find = said["tools"]
    assert weather == FUNCTION
    assert patch["function"]["parameters"]["required"] == ["input"]
    assert patch["function"]["description"] == "Edits files.\n\n`input` has to match this lark grammar:\nstart: ANY"
    assert find["function"] == {**FUNCTION["function"], "name": "tickets__find"}
    assert said["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("choice", "names", "wanted"),
    [
        ("auto", ["weather", "apply_patch", "tickets__find"], "auto"),
        (
            {"type": "function", "name": "weather"},
            ["weather", "apply_patch", "tickets__find"],
            {"type": "function", "function": {"name": "weather"}},
        ),
        (
            {"type": "custom", "name": "apply_patch"},
            ["weather", "apply_patch", "tickets__find"],
            {"type": "function", "function": {"name": "apply_patch"}},
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [
                    {"type": "function", "name": "weather"},
                    {"type": "namespace", "name": "tickets"},
                    {"type": "web_search"},
                ],
            },
            ["weather", "tickets__find"],
            "required",
        ),
    ],
)
def test_the_choice_of_a_tool(choice, names, wanted):
    """Tools that are not allowed are not shown: every dialect can say that."""
    said = chat(asked(tools=[WEATHER, PATCH, TICKETS], tool_choice=choice))
    assert ([tool["function"]["name"] for tool in said["tools"]], said["tool_choice"]) == (names, wanted)


def test_where_no_tools_are_left_nothing_is_said_of_them():
    """OpenAI's own and others refuse a choice where there is nothing to choose; Codex always says `auto`."""
    said = chat(asked(tools=[{"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True))
    assert not said.keys() & {"tools", "tool_choice", "parallel_tool_calls"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]"),
        ({"tools": [WEATHER, {"type": "file_search"}]}, "tools[1]"),
        ({"tools": [{"type": "hologram"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [{**TICKETS, "tools": [TICKETS]}]}, "tools[0].tools[0]"),
        ({"tools": [WEATHER], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": 7}]}, "input[0]"),
        ({"input": [USER, {"type": "computer_call_output", "output": {}}]}, "input[1]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "f"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "system", "content": [PICTURE]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0]"),
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"text": {"format": {"type": "regex"}}}, "text.format.type"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
    ],
)
def test_a_mistake_is_named_by_its_place(fields, param):
    """Nobody looks for a part without a type in a body of a megabyte."""
    with pytest.raises(BadRequest) as caught:
        chat_body(asked(**fields))
    assert caught.value.param == param
