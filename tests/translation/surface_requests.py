"""Requests of Anthropic's Messages API and OpenAI's Responses API, made up from everything that their schemas have."""

from typing import Any

from hypothesis import strategies as st

from tests.translation.requests import MARK, SCHEMA, Said

Block = dict[str, Any]

# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def block(say: Said, kind: str) -> Block:
    """A block of a user's."""
    match kind:
        case "text":
            said: Block = {"type": "text", "text": say.text()}
        case "image":
            uploaded = {"type": "base64", "media_type": "image/png", "data": say.data()}
            said = {
                "type": "image",
                "source": say.draw(st.sampled_from([uploaded, {"type": "url", "url": "https://x.example/a"}])),
            }
        case "document":
            pdf = {"type": "base64", "media_type": "application/pdf", "data": say.data()}
            plain = {"type": "text", "media_type": "text/plain", "data": say.text()}
            source = say.draw(st.sampled_from([pdf, plain]))
            more = say.some(title=say.text, context=say.text, citations=st.just({"enabled": True}))
            said = {"type": "document", "source": source, **more}
        case "search_result":
            found = [{"type": "text", "text": say.text()}]
            said = {"type": "search_result", "source": say.name(), "title": say.text(), "content": found}
        case _:
            said = {"type": "container_upload", "file_id": say.name()}
    return said | say.some(cache_control=st.just(MARK))


def blocks(say: Said, *kinds: str) -> Any:
    if say.maybe():
        return say.text()
    others = [block(say, say.draw(st.sampled_from(kinds))) for _ in range(say.draw(st.integers(1, 2)))]
    return [*others, block(say, "text")]


def message_turn(say: Said) -> list[dict[str, Any]]:
    """An answer, and what its tools gave back, with something more of the user's."""
    said: list[Block] = []
    if say.maybe():
        said.append({"type": "thinking", "thinking": say.text(), "signature": say.text()})
    if say.maybe(5):
        said.append({"type": "redacted_thinking", "data": say.name()})
    said.append(block(say, "text"))
    results: list[Block] = []
    for _ in range(say.draw(st.integers(0, 2))):
        id = f"toolu_{say.number()}_"
        marks = say.some(cache_control=st.just(MARK))
        said.append({"type": "tool_use", "id": id, "name": say.name(), "input": say.given(), **marks})
        more = say.some(is_error=st.just(True), cache_control=st.just(MARK))
        results.append({"type": "tool_result", "tool_use_id": id, "content": blocks(say, "text", "image"), **more})
    after = [block(say, "text")] if say.maybe(2) or not results else []
    return [{"role": "assistant", "content": said}, {"role": "user", "content": [*results, *after]}]


@st.composite
def message_requests(draw: st.DrawFn) -> dict[str, Any]:
    say = Said(draw)
    kinds = ("text", "text", "image", "document", "search_result", "container_upload")
    turns: list[dict[str, Any]] = [{"role": "user", "content": blocks(say, *kinds)}]
    if say.maybe():
        turns.append({"role": "system", "content": say.text()})
        turns.append({"role": "user", "content": say.text()})
    for _ in range(draw(st.integers(0, 2))):
        turns += message_turn(say)
    said: dict[str, Any] = {"model": "m", "max_tokens": draw(st.integers(30_000, 60_000)), "messages": turns}
    if say.maybe(2):
        said["system"] = blocks(say, "text")
    if say.maybe(2):
        said["tools"] = [message_tool(say) for _ in range(draw(st.integers(1, 2)))]
        choice = draw(st.sampled_from([{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool"}]))
        if choice["type"] == "tool":
            choice = {**choice, "name": said["tools"][0]["name"]}
        if choice["type"] != "none":
            choice = choice | say.some(disable_parallel_tool_use=st.just(True))
        said |= say.some(tool_choice=st.just(choice))
        if say.maybe(6):
            said["tools"].append({"type": "web_search_20250305", "name": "web_search"})
    thinking = [{"type": "enabled", "budget_tokens": 5000}, {"type": "disabled"}, {"type": "adaptive"}]
    schema = {"type": "json_schema", "schema": say.schema()}
    return said | say.some(
        stop_sequences=lambda: [say.text()],
        temperature=st.floats(0.01, 0.99),
        top_p=st.floats(0.01, 0.99),
        top_k=st.integers(1, 40),
        thinking=st.sampled_from(thinking),
        output_config=lambda: say.some(effort=st.just("medium"), format=st.just(schema)),
        metadata=lambda: {"user_id": say.name(), **say.some(other=say.name)},
        service_tier=st.sampled_from(["auto", "standard_only"]),
        container=say.name,
        context_management=st.just({"edits": []}),
        speed=st.just("fast"),
        cache_control=st.just(MARK),
        inference_geo=st.just("us"),
        mcp_servers=st.just([{"type": "url", "url": "https://mcp.example", "name": "x"}]),
        seed=st.integers(1, 9),
    )


def message_tool(say: Said) -> dict[str, Any]:
    more = say.some(
        description=say.text,
        strict=st.just(True),
        cache_control=st.just(MARK),
        type=st.just("custom"),
        defer_loading=st.just(True),
    )
    return {"name": say.name(), "input_schema": say.schema(), **more}


# ── Responses ────────────────────────────────────────────────────────────────────────────────────────────────────


def input_part(say: Said, kind: str) -> dict[str, Any]:
    match kind:
        case "text":
            return {"type": "input_text", "text": say.text()}
        case "picture":
            url = f"data:image/png;base64,{say.data()}"
            return {"type": "input_image", "image_url": url, **say.some(detail=st.just("low"))}
        case "file":
            name = say.some(filename=say.name)
            return {"type": "input_file", "file_data": f"data:application/pdf;base64,{say.data()}", **name}
        case _:
            return {"type": "input_image", "file_id": say.name()}


def response_turn(say: Said) -> list[dict[str, Any]]:
    """What was thought, said and called, and what came of the calls."""
    items: list[dict[str, Any]] = []
    if say.maybe():
        summary = [{"type": "summary_text", "text": say.text()}]
        items.append({"type": "reasoning", "summary": summary, **say.some(encrypted_content=say.name)})
    if say.maybe(6):
        items.append({"type": "web_search_call", "status": "completed"})
    said = {"type": "refusal", "refusal": say.text()} if say.maybe(4) else {"type": "output_text", "text": say.text()}
    items.append({"type": "message", "role": "assistant", "content": [said]})
    ids = [f"call_{say.number()}_" for _ in range(say.draw(st.integers(0, 2)))]
    custom = say.maybe(2)
    for id in ids:
        called = {"call_id": id, "name": say.name()}
        if custom:
            items.append({"type": "custom_tool_call", **called, "input": say.text()})
        else:
            given = {"arguments": f'{{"city": "{say.name()}"}}', **say.some(status=st.just("completed"))}
            items.append({"type": "function_call", **called, **given})
    kind = "custom_tool_call_output" if custom else "function_call_output"
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{say.data()}", "detail": "high"}
    parts = [input_part(say, "text"), picture]
    return items + [
        {"type": kind, "call_id": id, "output": parts if say.maybe() and id == ids[0] else say.text()} for id in ids
    ]


@st.composite
def response_requests(draw: st.DrawFn) -> dict[str, Any]:
    say = Said(draw)
    kinds = ("text", "text", "picture", "file", "file id")
    items: list[dict[str, Any]] = []
    for role in ("developer", "system"):
        if say.maybe():
            items.append({"role": role, "content": say.text()})
    for _ in range(draw(st.integers(1, 2))):
        parts = [input_part(say, draw(st.sampled_from(kinds))) for _ in range(draw(st.integers(1, 3)))]
        items.append({"role": "user", "content": [{"type": "input_text", "text": say.text()}, *parts]})
        items += response_turn(say) if say.maybe(2) else []
        if say.maybe(9):
            items.append({"type": "item_reference", "id": say.name()})
    items.append({"role": "user", "content": say.text()})
    said: dict[str, Any] = {"model": "m", "input": items}
    if say.maybe(2):
        said["tools"] = [response_tool(say, draw(st.sampled_from(TOOLS))) for _ in range(draw(st.integers(1, 3)))]
        if say.maybe(2):
            said["tools"].append({"type": "function", "name": say.name(), "parameters": SCHEMA, "strict": True})
            named = {"type": "function", "name": said["tools"][-1]["name"]}
            said |= say.some(tool_choice=st.sampled_from(["auto", "none", "required", named]))
            said |= say.some(parallel_tool_calls=st.booleans())
    forms = [
        *({"type": "text"}, {"type": "json_object"}),
        {"type": "json_schema", "name": "answer", "schema": say.schema(), "strict": True},
    ]
    refused = {name: st.just({"id": "x"}) for name in ("conversation", "moderation", "prompt")}
    return said | say.some(
        instructions=say.text,
        max_output_tokens=st.integers(2000, 9000),
        temperature=st.floats(0.01, 0.99),
        top_p=st.floats(0.01, 0.99),
        top_logprobs=st.integers(1, 5),
        reasoning=st.just({"effort": "low", "summary": "auto"}),
        text=lambda: say.some(format=st.sampled_from(forms), verbosity=st.just("low")),
        service_tier=st.just("flex"),
        safety_identifier=say.name,
        user=say.name,
        background=st.just(True),
        previous_response_id=say.name,
        context_management=st.just([{"type": "compaction"}]),
        access_programs=st.just(["x"]),
        include=st.just(["reasoning.encrypted_content"]),
        max_tool_calls=st.integers(1, 5),
        metadata=lambda: {"team": say.name()},
        prompt_cache_key=say.name,
        prompt_cache_options=st.just({"mode": "implicit"}),
        prompt_cache_retention=st.just("24h"),
        store=st.booleans(),
        stream_options=st.just({"include_obfuscation": False}),
        truncation=st.just("auto"),
        client_metadata=st.just("x"),
        image=st.just({"context_compression": "x"}),
        **refused,
    )


TOOLS = ("function", "function", "custom", "namespace", "web_search", "mcp")


def response_tool(say: Said, kind: str) -> dict[str, Any]:
    more = say.some(description=say.text)
    function = {"type": "function", "name": say.name(), "parameters": say.schema(), **more}
    match kind:
        case "function":
            return function
        case "custom":
            grammar = {"type": "grammar", "syntax": "lark", "definition": say.text()}
            return {"type": "custom", "name": say.name(), **more, **say.some(format=st.just(grammar))}
        case "namespace":
            return {"type": "namespace", "name": say.name(), "description": say.text(), "tools": [function]}
        case "web_search":
            return {"type": "web_search"}
        case _:
            return {"type": "mcp", "server_label": say.name()}
