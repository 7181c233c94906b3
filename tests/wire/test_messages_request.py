"""A Messages request is the same request as a chat completion, or is refused by name."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.providers.anthropic_request import messages_request
from gateway.wire.chat_request import chat_request
from gateway.wire.messages_request import DROPPED, chat_body, left_out, without_our_thoughts
from gateway.wire.messages_types import GOOGLE, UNSIGNED
from gateway.wire.plain_chat import plain_chat

MARK = {"cache_control": {"type": "ephemeral"}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "weather", "input_schema": SCHEMA}


def as_body(said: dict[str, Any]) -> Body:
    raw = msgspec.json.encode(said)
    return Body(raw, msgspec.json.decode(raw, type=dict[str, Raw]))


def chat(**said: Any) -> dict[str, Any]:
    question = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    body = chat_body(as_body({**question, **said}))
    assert json.loads(body.raw) == {name: json.loads(bytes(raw)) for name, raw in body.fields.items()}
    chat_request(body.raw)
    return json.loads(body.raw)


def turns(*messages: tuple[str, Any]) -> list[dict[str, Any]]:
    return chat(messages=[{"role": role, "content": content} for role, content in messages])["messages"]


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def called(id: str = "t1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "weather", "input": {"city": "Ur"}, **more}


def result(content: Any = None, id: str = "t1", **more: Any) -> dict[str, Any]:
    said = {"type": "tool_result", "tool_use_id": id, **more}
    return said if content is None else {**said, "content": content}


def document(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
PLAIN = {"type": "text", "media_type": "text/plain", "data": "Once"}


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        (text("a"), "a"),
        (text("a", **MARK), [text("a", **MARK)]),
        (PNG, [PNG_PART]),
        (PNG | MARK, [PNG_PART | MARK]),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
            [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}],
        ),
        (
            document(PDF, title="a.pdf", citations={"enabled": True}),
            [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}}],
        ),
        (
            document(PDF, context="old"),
            [
                text("old"),
                {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
            ],
        ),
        (document(PLAIN), "Once"),
        (document(PLAIN, title="Tale"), "Tale\n\nOnce"),
        (document({"type": "content", "content": "Once"}), "Once"),
        (document({"type": "content", "content": [text("a"), PNG]}, title="T"), [text("T"), text("a"), PNG_PART]),
        (
            {"type": "search_result", "source": "https://x.test", "title": "X", "content": [text("a"), text("b")]},
            "X (https://x.test)\na\nb",
        ),
    ],
)
def test_every_block_of_a_user_is_a_part(block, parts):
    """Images and files reach every provider that takes them; what only Anthropic has a form for becomes text."""
    assert turns(("user", [block])) == [{"role": "user", "content": parts}]


@pytest.mark.parametrize(
    ("block", "messages"),
    [
        (result("12 °C"), [{"role": "tool", "tool_call_id": "t1", "content": "12 °C"}]),
        (result(), [{"role": "tool", "tool_call_id": "t1", "content": ""}]),
        (result([text("a"), text("b")]), [{"role": "tool", "tool_call_id": "t1", "content": "a\nb"}]),
        (
            result("no city", is_error=True),
            [{"role": "tool", "tool_call_id": "t1", "content": "The call failed: no city"}],
        ),
        (result(is_error=True), [{"role": "tool", "tool_call_id": "t1", "content": "The call failed."}]),
        (result("a", **MARK), [{"role": "tool", "tool_call_id": "t1", "content": [text("a", **MARK)]}]),
        (
            result([{"type": "tool_reference", "tool_name": "grep"}]),
            [{"role": "tool", "tool_call_id": "t1", "content": "The tool grep can be called."}],
        ),
        (
            result([text("a"), PNG]),
            [
                {
                    "role": "tool",
                    "tool_call_id": "t1",
                    "content": "a\n(What it returned besides text is in the next message.)",
                },
                {"role": "user", "content": [PNG_PART]},
            ],
        ),
    ],
)
def test_a_result_is_a_message_of_its_tool(block, messages):
    """A tool may answer in text only; its pictures are shown by the user, behind it."""
    assert turns(("user", [block])) == messages


def test_results_stand_before_all_else_in_their_turn():
    """OpenAI refuses a message between a call and its results."""
    said = turns(("user", [text("so:"), result("a"), PNG, result("b", "t2"), text("?")]))
    assert [message["role"] for message in said] == ["tool", "tool", "user"]
    assert [message.get("tool_call_id") for message in said] == ["t1", "t2", None]
    assert said[2]["content"] == [text("so:"), PNG_PART, text("?")]
    system = {"type": "mid_conv_system", "content": [text("Now!")]}
    assert [message["role"] for message in turns(("user", [system, result("a")]))] == ["tool", "system"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a", {"content": "a"}),
        ([text("a"), text("b", citations=[{"url": "u"}])], {"content": "ab"}),
        ([text("a", **MARK)], {"content": [text("a", **MARK)]}),
        (
            [called(caller={"type": "direct"})],
            {
                "content": None,
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ur"}'}}
                ],
            },
        ),
        (
            [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, text("a")],
            {
                "content": "a",
                "reasoning_content": "hm",
                "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}],
            },
        ),
        (
            [{"type": "redacted_thinking", "data": "eA=="}, text("a")],
            {"content": "a", "thinking_blocks": [{"type": "redacted_thinking", "data": "eA=="}]},
        ),
        (
            [{"type": "thinking", "thinking": "hm", "signature": UNSIGNED}, text("a")],
            {"content": "a", "reasoning_content": "hm"},
        ),
        (
            [{"type": "redacted_thinking", "data": f"{GOOGLE}c2ln"}, called()],
            {
                "content": None,
                "tool_calls": [
                    {
                        "id": "t1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Ur"}'},
                        "extra_content": {"google": {"thought_signature": "c2ln"}},
                    }
                ],
            },
        ),
    ],
)
def test_an_answer_comes_back_as_it_was_given(content, message):
    """Signed reasoning goes back to whom it came from; what we signed ourselves is no one's."""
    assert turns(("assistant", content)) == [{"role": "assistant", **message}]


def test_system_prompts_stay_where_they_are():
    """Moved to the front, one in mid-conversation would change what the upstream has cached with every turn."""
    said = chat(
        system=[text("Be kind.", **MARK), text("Be brief.")],
        messages=[
            {"role": "user", "content": [text("a"), {"type": "mid_conv_system", "content": [text("b")]}, text("c")]},
            {"role": "system", "content": [text("d")]},
            {"role": "system", "content": "e"},
        ],
    )["messages"]
    assert [message["role"] for message in said] == ["system", "user", "system", "user", "system", "system"]
    assert [message["content"] for message in said[1:]] == ["a", "b", "c", "d", "e"]
    assert said[0]["content"] == [text("Be kind.", **MARK), text("Be brief.")]


def test_a_line_for_anthropics_books_is_not_part_of_a_prompt():
    """Older versions of Claude Code change it with each request, and nothing would be cached."""
    line = text("x-anthropic-billing-header: cc_version=2.1; cch=abc;")
    assert chat(system=[line, text("Be kind.")])["messages"][0] == {"role": "system", "content": "Be kind."}


def test_empty_texts_are_left_out():
    """Upstreams refuse them."""
    assert turns(("user", [text("")]), ("assistant", [text("")]), ("user", "a")) == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"max_tokens": 7}, {"max_completion_tokens": 7}),
        ({"stop_sequences": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 4}, {"temperature": 0.5, "top_p": 0.9, "top_k": 4}),
        ({"metadata": {"user_id": "u"}}, {"safety_identifier": "u"}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, {"reasoning_effort": "high"}),
        ({"output_config": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}),
        ({"seed": 3}, {"seed": 3}),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
    ],
)
def test_every_option_has_its_place(said, wanted):
    """Sampling, thinking, tiers: the same wish, in the other dialect's words; what is null is not said."""
    question = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert chat(**({"max_tokens": None, "system": None} | said)) == {**question, **wanted}


def test_a_long_name_of_a_user_is_hashed():
    """OpenAI refuses more than 64 characters, and Claude Code sends more than 100."""
    said = [chat(metadata={"user_id": "u" * 120})["safety_identifier"] for _ in range(2)]
    assert said[0] == said[1]
    assert len(said[0]) == 64


@pytest.mark.parametrize("where", ["output_config", "output_format"])
def test_an_answer_can_be_held_to_a_schema(where):
    """Under its name of today, and that of the beta."""
    form = {"type": "json_schema", "schema": SCHEMA}
    said = chat(**{where: {"format": form} if where == "output_config" else form})
    schema = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert said["response_format"] == {"type": "json_schema", "json_schema": schema}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "weather"}, {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto"}),
    ],
)
def test_tools_and_their_choice(choice, wanted):
    """A tool of the client's is a function; its schema goes on as it came."""
    tools = [{**TOOL, "type": "custom", "description": "Tells.", "strict": True, "defer_loading": True, **MARK}]
    said = chat(tools=tools, tool_choice=choice)
    function = {"name": "weather", "parameters": SCHEMA, "description": "Tells.", "strict": True}
    assert said.pop("tools") == [{"type": "function", "function": function, **MARK}]
    assert {name: said[name] for name in said.keys() & {"tool_choice", "parallel_tool_calls"}} == wanted


def user(block: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [block]}]}


def assistant(block: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "content": [block]}]}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"tools": [TOOL, {"type": "web_search_20260209", "name": "web_search"}]}, "tools[1]"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
        ({"tools": [{"name": "weather"}]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"output_config": {"effort": "vast"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "regex"}}}, "output_config.format"),
        ({"service_tier": "best"}, "service_tier"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"mcp_servers": [{"type": "url", "url": "https://x.test"}]}, "mcp_servers"),
        ({"n": 2}, "n"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"system": [PNG]}, "system[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (user({"type": "container_upload", "file_id": "f"}), "messages[0].content[0]"),
        (user({"type": "tool_result", "content": "x"}), "messages[0].content[0].tool_use_id"),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages[0].content[0].source"),
        (user(document({"type": "url", "url": "https://x.test/a.pdf"})), "messages[0].content[0].source"),
        (user(document({"type": "content", "content": [{"type": "odd"}]})), "messages[0].content[0].source.content[0]"),
        (user(result([{"type": "odd"}])), "messages[0].content[0].content[0]"),
        (user({"type": "thinking", "thinking": "hm"}), "messages[0].content[0]"),
        (assistant({"type": "server_tool_use", "id": "s", "name": "web_search"}), "messages[0].content[0]"),
        (assistant({"type": "web_search_tool_result", "content": {"type": "error"}}), "messages[0].content[0]"),
        (assistant({"type": "tool_use", "name": "weather"}), "messages[0].content[0]"),
        (assistant(called(input=[1])), "messages[0].content[0].input"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(said, param):
    """A field that is silently dropped is a wrong answer that nobody can explain."""
    with pytest.raises(BadRequest) as raised:
        chat(**said)
    assert raised.value.param == param


def test_what_is_left_out_is_told_with_its_reason():
    """Official clients send these with every call, and expect them to be taken."""
    said = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "betas": ["x-2026-01-01"],
        "context_management": {"edits": []},
        "seed": 1,
        "brand_new": {},
    }
    body = as_body(said)
    assert left_out(body).keys() == {"betas", "context_management", "brand_new"}
    assert left_out(body)["betas"] == DROPPED["betas"]
    assert json.loads(chat_body(body).raw).keys() == {"model", "messages", "max_completion_tokens", "seed"}


def test_a_body_that_is_nested_too_deep_is_the_clients_fault():
    """And not a traceback of ours."""
    content = b'{"type":"tool_result","content":[' * 2000 + b"]}" * 2000
    raw = b'{"model":"m","messages":[{"role":"user","content":[%s]}]}' % content
    with pytest.raises(BadRequest):
        chat_body(Body(raw, {}))


def test_anthropic_is_not_sent_what_we_have_signed():
    """It checks signatures: a conversation that went to another upstream in between would never come back."""
    thought = {"type": "thinking", "thinking": "hm", "signature": UNSIGNED}
    carrier = {"type": "redacted_thinking", "data": f"{GOOGLE}c2ln"}
    real = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [thought, carrier, called()]},
        {"role": "assistant", "content": [thought]},
        {"role": "assistant", "content": [real, text(f"I said {UNSIGNED}")]},
    ]
    body = without_our_thoughts(as_body({"model": "m", "messages": said}))
    kept = [said[0], {"role": "assistant", "content": [called()]}, said[3]]
    assert json.loads(body.raw) == {"model": "m", "messages": kept}
    plain = as_body({"model": "m", "messages": [said[0]]})
    assert without_our_thoughts(plain) is plain


def test_openai_is_sent_only_fields_that_it_knows():
    """It answers 400 to a part with `cache_control`, which Claude Code puts everywhere."""
    body = chat_body(
        as_body(
            {
                "model": "m",
                "system": [text("Be kind.", **MARK)],
                "tools": [TOOL | MARK],
                "top_k": 3,
                "messages": [
                    {"role": "user", "content": [text("a"), PNG | MARK]},
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                            {"type": "redacted_thinking", "data": f"{GOOGLE}c2ln"},
                            called(),
                        ],
                    },
                    {"role": "user", "content": [result("b", **MARK)]},
                ],
            }
        )
    )
    plain = plain_chat(body)
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ur"}'}}
    assert json.loads(plain.raw) == {
        "model": "m",
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [text("a"), PNG_PART]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "b"},
        ],
    }
    assert plain_chat(plain) is plain
    kept = json.loads(plain_chat(body, keep={"reasoning_content", "top_k"}).raw)
    assert (kept["top_k"], kept["messages"][2]["reasoning_content"]) == (3, "hm")


# ── There and back ───────────────────────────────────────────────────────────────────────────────────────────────

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
marks = st.sampled_from([{}, {}, MARK])
files = st.fixed_dictionaries({"filename": words, "file_data": st.just("data:application/pdf;base64,JVBE")})
texts = st.builds(lambda said, mark: text(said, **mark), words, marks)
parts = st.one_of(
    texts,
    st.builds(lambda mark: PNG_PART | mark, marks),
    st.builds(lambda file, mark: {"type": "file", "file": file, **mark}, files, marks),
)
arguments = st.dictionaries(words, st.none() | st.booleans() | st.integers(-9, 9) | words, max_size=2)


def content(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A lone text without a breakpoint is written as such."""
    several = st.lists(part, min_size=1, max_size=3)
    return words | several.filter(lambda said: len(said) > 1 or said[0].keys() != {"type", "text"})


@st.composite
def answers(draw, turn: int) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": draw(words)}
    if draw(st.booleans()):
        blocks = draw(st.lists(st.fixed_dictionaries({"thinking": words, "signature": words}), min_size=1, max_size=2))
        said["reasoning_content"] = "".join(block["thinking"] for block in blocks)
        said["thinking_blocks"] = [{"type": "thinking", **block} for block in blocks]
    said["tool_calls"] = [
        {
            "id": f"call_{turn}_{n}",
            "type": "function",
            "function": {"name": draw(names), "arguments": msgspec.json.encode(draw(arguments)).decode()},
        }
        for n in range(draw(st.integers(1, 2)))
    ]
    return said


@st.composite
def conversations(draw) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": draw(content(texts))}] if draw(st.booleans()) else []
    messages.append({"role": "user", "content": draw(content(parts))})
    for turn in range(draw(st.integers(0, 2))):
        answer = draw(answers(turn))
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": draw(words)} for call in answer["tool_calls"]
        ]
        messages += [answer, *results]
        if draw(st.booleans()):
            messages.append({"role": "user", "content": draw(content(parts))})
    return messages


@st.composite
def requests(draw) -> dict[str, Any]:
    """What a chat completion can ask of Claude, in the form in which it comes back."""
    said: dict[str, Any] = {
        "model": draw(st.sampled_from(["claude-opus-5", "local"])),
        "messages": draw(conversations()),
    }
    said["max_completion_tokens"] = draw(st.integers(1, 9999))
    maybe: dict[str, Any] = {
        "stop": st.lists(words, min_size=1, max_size=3),
        "safety_identifier": words,
        "service_tier": st.sampled_from(["auto", "default"]),
        "response_format": st.just({"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}),
    }
    if said["model"] == "local":
        maybe |= {"temperature": st.floats(0, 1), "top_p": st.floats(0, 1), "top_k": st.integers(1, 9)}
    else:
        maybe |= {"reasoning_effort": st.sampled_from(["none", "low", "medium", "high", "xhigh", "max"])}
    for name, values in maybe.items():
        if draw(st.booleans()):
            said[name] = draw(values)
    if draw(st.booleans()):
        said |= {"stream": True, "stream_options": {"include_usage": True}}
    if draw(st.booleans()):
        function = {"name": draw(names), "parameters": SCHEMA, "description": draw(words)}
        said["tools"] = [{"type": "function", "function": function, **draw(marks)}]
        named = {"type": "function", "function": {"name": function["name"]}}
        if draw(st.booleans()):
            said["tool_choice"] = draw(st.sampled_from(["auto", "required", named]))
            said |= draw(st.sampled_from([{}, {"parallel_tool_calls": False}]))
    return said


@given(said=requests())
def test_a_request_that_goes_to_anthropic_and_back_is_the_same(said):
    """The two translations are each other's inverse, so neither loses what the other can say."""
    body = as_body(said)
    there = messages_request(chat_request(body.raw), body, said["model"], said.get("stream", False))
    back = json.loads(chat_body(as_body({"model": said["model"], **there})).raw)
    if form := back.get("response_format"):
        assert form["json_schema"].pop("strict") is True
    assert back == said
