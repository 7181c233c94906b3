"""Requests of each surface, made up from everything that its schema has. No two texts in one are the same."""

import json
from typing import Any

from hypothesis import strategies as st

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MARK = {"type": "ephemeral"}
letters = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=3)


class Said:
    """Draws what has to be told apart: each text has a number."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.count = 0

    def number(self) -> int:
        self.count += 1
        return self.count

    def text(self) -> str:
        return f"<{self.number()}>{self.draw(letters)}"

    def name(self) -> str:
        return f"name_{self.number()}_"

    def data(self) -> str:
        """Base64 of which no other is a part."""
        return f"{self.number():08d}"

    def maybe(self, odds: int = 3) -> bool:
        return self.draw(st.integers(1, odds)) == odds

    def some(self, **fields: Any) -> dict[str, Any]:
        """Return some of the fields; one that is a function is asked for its value."""
        return {name: made() if callable(made) else self.draw(made) for name, made in fields.items() if self.maybe()}

    def schema(self) -> dict[str, Any]:
        return {**SCHEMA, "title": self.text()}

    def given(self) -> dict[str, Any]:
        return {"city": self.text(), **self.draw(st.dictionaries(letters, st.none() | st.integers(-9, 9), max_size=2))}


# ── Chat completions ─────────────────────────────────────────────────────────────────────────────────────────────


def chat_part(say: Said, kind: str) -> dict[str, Any]:
    match kind:
        case "text":
            said: dict[str, Any] = {"type": "text", "text": say.text()}
        case "picture":
            url = say.draw(
                st.sampled_from([f"data:image/png;base64,{say.data()}", f"https://x.example/{say.name()}.png"])
            )
            said = {"type": "image_url", "image_url": {"url": url, **say.some(detail=st.just("low"))}}
        case "audio":
            said = {"type": "input_audio", "input_audio": {"data": say.data(), "format": "wav"}}
        case "file id":
            said = {"type": "file", "file": {"file_id": say.name()}}
        case _:
            file = {"file_data": f"data:application/pdf;base64,{say.data()}", **say.some(filename=say.name)}
            said = {"type": "file", "file": file}
    marks = say.some(cache_control=st.just(MARK), prompt_cache_breakpoint=st.just({"mode": "explicit"}))
    return said | marks


def content(say: Said, *kinds: str) -> Any:
    """A text, or parts."""
    if say.maybe():
        return say.text()
    return [chat_part(say, say.draw(st.sampled_from(kinds))) for _ in range(say.draw(st.integers(1, 3)))]


def chat_call(say: Said, id: str) -> dict[str, Any]:
    if say.maybe(12):
        return {"id": id, "type": "custom", "custom": {"name": say.name(), "input": say.text()}}
    arguments = json.dumps(say.given())
    signed = say.some(extra_content=lambda: {"google": {"thought_signature": say.text()}})
    return {"id": id, "type": "function", "function": {"name": say.name(), "arguments": arguments}, **signed}


def chat_turn(say: Said) -> list[dict[str, Any]]:
    """An answer, and the results of what it called."""
    said: dict[str, Any] = {"role": "assistant", **say.some(name=say.name, refusal=say.text)}
    if say.maybe(12):
        said["audio"] = {"id": say.name()}
    if say.maybe(12):
        said["function_call"] = {"name": say.name(), "arguments": "{}"}
    said["content"] = say.text()
    if say.maybe():
        said["content"] = [{"type": "refusal", "refusal": say.text()}] if say.maybe() else [chat_part(say, "text")]
    if say.maybe():
        thought = say.text()
        said["reasoning_content"] = thought
        if say.maybe(2):
            said["thinking_blocks"] = [{"type": "thinking", "thinking": thought, "signature": say.text()}]
    if say.maybe(2):
        return [said]
    said["tool_calls"] = [chat_call(say, f"call_{say.number()}_") for _ in range(say.draw(st.integers(1, 2)))]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": content(say, "text"), **say.some(name=say.name)}
        for call in said["tool_calls"]
        if call["type"] == "function"
    ]
    return [said, *results]


def chat_tools(say: Said) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    for _ in range(say.draw(st.integers(1, 2))):
        more = say.some(description=say.text, parameters=say.schema, strict=st.just(True))
        tools.append(
            {"type": "function", "function": {"name": say.name(), **more}, **say.some(cache_control=st.just(MARK))}
        )
    name = tools[0]["function"]["name"]
    choices = [
        *("auto", "none", "required", {"type": "function", "function": {"name": name}}),
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": name}]}},
    ]
    if say.maybe(12):
        tools.append({"type": "custom", "custom": {"name": say.name()}})
    chosen = {"tool_choice": say.draw(st.sampled_from(choices))} if say.maybe(2) else {}
    return {"tools": tools, **chosen, **say.some(parallel_tool_calls=st.booleans())}


def seldom() -> list[dict[str, Any]]:
    """Return requests that chance seldom makes."""
    user, last = {"role": "user", "content": "<1>"}, {"role": "user", "content": "<9>"}
    called = {"id": "call_1", "type": "function", "function": {"name": "one", "arguments": "{}"}}
    history = [user, {"role": "assistant", "tool_calls": [called]}, {"role": "tool", "tool_call_id": "call_1"}, last]
    one, two = (
        {"name": name, "description": f"<{name}>", "parameters": {"type": "object", "title": name}}
        for name in ("one", "two")
    )
    tools = [
        {"type": "function", "function": function, "cache_control": MARK} for function in ({**one, "strict": True}, two)
    ]
    named = {"type": "function", "function": {"name": "one"}}
    asked: list[dict[str, Any]] = [
        {"messages": [user], "tools": tools, "tool_choice": "none", "parallel_tool_calls": False},
        {"messages": history, "tools": tools, "tool_choice": "none"},
        {"messages": [user], "tools": tools, "tool_choice": named, "reasoning_effort": "low"},
        {"messages": [user], "tools": tools[:1], "tool_choice": "none"},
        {"messages": [user], "tools": tools, "tool_choice": "required"},
        {"messages": [user], "temperature": 0.5, "top_p": 0.4, "top_k": 3, "reasoning_effort": "high"},
        {"messages": [user], "max_tokens": 3000, "max_completion_tokens": 4000, "user": "a", "safety_identifier": "b"},
    ]
    odd: list[dict[str, Any]] = [
        {"content": "<2>", "function_call": {"name": "one", "arguments": "{}"}},
        {"content": "<2>", "audio": {"id": "a"}},
        {"content": [{"type": "refusal", "refusal": "<2>"}]},
        {"content": "<2>", "tool_calls": [{"id": "call_1", "type": "custom", "custom": {"name": "c", "input": "<3>"}}]},
    ]
    asked += [{"messages": [user, {"role": "assistant", **turn}, last]} for turn in odd]
    asked.append({"messages": [user], "tools": [{"type": "custom", "custom": {"name": "c"}}]})
    return [{"model": "m", **one} for one in asked]


@st.composite
def chat_requests(draw: st.DrawFn) -> dict[str, Any]:
    """Everything that OpenAI's own schema has, and what clients are used to send besides."""
    say = Said(draw)
    messages: list[dict[str, Any]] = []
    if say.maybe(2):
        role = draw(st.sampled_from(["system", "developer"]))
        messages.append({"role": role, "content": content(say, "text"), **say.some(name=say.name)})
    for _ in range(draw(st.integers(1, 2))):
        kinds = ("text", "text", "picture", "audio", "file", "file id")
        messages.append({"role": "user", "content": content(say, *kinds), **say.some(name=say.name)})
        messages += chat_turn(say) if say.maybe(2) else []
        if say.maybe(5):
            messages.append({"role": "system", "content": say.text()})
    messages.append({"role": "user", "content": say.text()})
    said: dict[str, Any] = {"model": "m", "messages": messages}
    if say.maybe(2):
        said |= chat_tools(say)
    form = [
        *({"type": "text"}, {"type": "json_object"}),
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": say.schema(), "strict": True}},
    ]
    count = st.integers(2000, 9000)
    number = st.floats(0.01, 0.99)
    return said | say.some(
        max_completion_tokens=count,
        max_tokens=count,
        temperature=number,
        top_p=number,
        top_k=st.integers(1, 40),
        n=st.integers(2, 4),
        stop=lambda: [say.text()],
        seed=st.integers(1, 99),
        frequency_penalty=number,
        presence_penalty=number,
        logit_bias=st.just({"7": 1}),
        logprobs=st.just(True),
        top_logprobs=st.integers(1, 5),
        response_format=st.sampled_from(form),
        reasoning_effort=st.sampled_from(["none", "low", "medium", "high"]),
        verbosity=st.just("low"),
        service_tier=st.sampled_from(["auto", "default", "flex"]),
        modalities=st.just(["text", "audio"]),
        audio=st.just({"voice": "ash", "format": "wav"}),
        prediction=lambda: {"type": "content", "content": say.text()},
        web_search_options=st.just({"search_context_size": "low"}),
        store=st.just(True),
        metadata=lambda: {"team": say.name()},
        prompt_cache_key=say.name,
        prompt_cache_options=st.just({"mode": "implicit"}),
        prompt_cache_retention=st.just("24h"),
        safety_identifier=say.name,
        user=say.name,
        moderation=st.just({"model": "omni-moderation-latest"}),
        functions=st.just([{"name": "f"}]),
        function_call=st.just("auto"),
        stream_options=st.just({"include_usage": True}),
    )
