"""Writes a chat completion request as a request of Cohere's chat API, version 2.

Translated: everything that the API can say; its own fields (`OWN`) go on as they came and beat what is made of
OpenAI's. Left out, for they are wishes and not demands: `user`, `metadata`, `service_tier`, `prediction`, `verbosity`,
`store`, `strict` unless all tools are, `parallel_tool_calls`, and the reasoning of turns whose model does not think and
that called no tool. Refused, naming the field: `n` over 1, log probabilities, `logit_bias`, audio, web search, files,
tools other than functions.

A function that is named by `tool_choice` becomes the only tool, which has to be called. `top_p` is held between the
API's bounds, for many clients send 1. Sources: docs.cohere.com/reference/chat, "Reasoning", "Tool use".
"""

from typing import Any

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.providers import chat
from gateway.wire.chat_request import ChatRequest, Message, ToolCall

Piece = dict[str, Any]

OWN = ("citation_options", "documents", "k", "p", "priority", "safety_mode", "strict_tools", "thinking")
"""Fields that only Cohere has."""

LEAST_P, MOST_P = 0.01, 0.99

BUDGETS = {"minimal": 512, "low": 1024, "medium": 8192}
"""Thinking tokens for an effort; a higher one thinks as long as it likes."""

THOUGHTLESS = ("c4ai-", "command-r", "command-a-03-2025", "command-a-translate", "command-a-vision")
"""Models that do not think, by the beginning of their names. Those yet unknown are taken to."""


def thinks(model: str) -> bool:
    """Tell whether `model` can be told to think."""
    return not model.startswith(THOUGHTLESS)


def chat_body(request: ChatRequest, body: Body, model: str, stream: bool) -> dict[str, Any]:
    """Return the body of `v2/chat`.

    Raises:
        BadRequest: Cohere has no way to say this.
    """
    chat.refuse_unspeakable(request, body, "Cohere")
    said: dict[str, Any] = {"model": model, "messages": _messages(request, model), "stream": stream}
    said |= _tools(request) | _sampling(request) | _form(request) | _thinking(request, model)
    return said | {name: body.fields[name] for name in OWN if name in body.fields}


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _messages(request: ChatRequest, model: str) -> list[Piece]:
    messages: list[Piece] = []
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        match message.role:
            case "system" | "developer":
                messages.append({"role": "system", "content": chat.text_of(message, where)})
            case "user":
                messages.append({"role": "user", "content": _content(message, where)})
            case "assistant":
                messages.append(_assistant(message, model, where))
            case "tool":
                result = {"tool_call_id": message.tool_call_id or "", "content": chat.text_of(message, where)}
                messages.append({"role": "tool", **result})
            case "function":
                chat.refuse('messages of the role "function" are not translated; use tools', f"{where}.role")
    return messages


def _content(message: Message, where: str) -> str | list[Piece]:
    """Return the content as text, or as parts where it has pictures."""
    parts: list[Piece] = []
    for number, part in enumerate(chat.parts(message)):
        if part.type == "text":
            parts.append({"type": "text", "text": part.text or ""})
        elif part.type == "image_url" and part.image_url is not None:
            detail = {"detail": part.image_url.detail} if part.image_url.detail else {}
            parts.append({"type": "image_url", "image_url": {"url": part.image_url.url, **detail}})
        else:
            chat.refuse(f'a part of type "{part.type}" cannot be sent to Cohere', f"{where}.content[{number}]")
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _assistant(message: Message, model: str, where: str) -> Piece:
    text = chat.text_of(message, where) + (message.refusal or "")
    thought = chat.thoughts_of(message)
    calls = [_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(message.tool_calls or [])]
    said: Piece = {"role": "assistant"}
    if thought and thinks(model):
        written = [{"type": "text", "text": text}] if text else []
        said["content"] = [{"type": "thinking", "thinking": thought}, *written]
    elif text or not calls:
        said["content"] = text
    if calls:
        said["tool_calls"] = calls
        if thought and not thinks(model):
            said["tool_plan"] = thought
    return said


def _call(call: ToolCall, where: str) -> Piece:
    chat.arguments(call, where)  # refuses what is no JSON object
    assert call.function is not None
    function = {"name": call.function.name, "arguments": call.function.arguments.strip() or "{}"}
    return {"id": call.id, "type": "function", "function": function}


# ── Tools, thinking, sampling ────────────────────────────────────────────────────────────────────────────────────


def _tools(request: ChatRequest) -> dict[str, Any]:
    functions = [chat.function_of(tool, number) for number, tool in enumerate(request.tools or [])]
    kind, name = chat.chosen_tool(request)
    if not functions:
        return {}
    if kind == "named":
        functions = [function for function in functions if function.name == name]
        if not functions:
            raise BadRequest(f'tool_choice names "{name}", which is none of the tools', param="tool_choice")
    tools: list[Piece] = []
    for function in functions:
        described = {"description": function.description} if function.description else {}
        schema = function.parameters or {"type": "object", "properties": {}}
        tools.append({"type": "function", "function": {"name": function.name, **described, "parameters": schema}})
    said: dict[str, Any] = {"tools": tools}
    if all(function.strict for function in functions):
        said["strict_tools"] = True
    choice = {"none": "NONE", "required": "REQUIRED", "named": "REQUIRED"}.get(kind)
    return {**said, "tool_choice": choice} if choice else said


def _sampling(request: ChatRequest) -> dict[str, Any]:
    said: dict[str, Any] = {
        "max_tokens": request.most_tokens,
        "temperature": request.temperature,
        "p": None if request.top_p is None else min(max(request.top_p, LEAST_P), MOST_P),
        "k": request.top_k,
        "seed": request.seed,
        "stop_sequences": request.stops or None,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    return {name: value for name, value in said.items() if value is not None}


def _form(request: ChatRequest) -> dict[str, Any]:
    form = request.response_format
    if form is None or form.type == "text":
        return {}
    schema = chat.schema_of(form)
    return {"response_format": {"type": "json_object", **({} if schema is None else {"json_schema": schema})}}


def _thinking(request: ChatRequest, model: str) -> dict[str, Any]:
    asked = chat.effort(request)
    if asked is None:
        return {}
    if not thinks(model):
        if asked == "none":
            return {}
        chat.refuse(f"{model} does not think; leave reasoning_effort out", "reasoning_effort")
    if asked == "none":
        return {"thinking": {"type": "disabled"}}
    budget = {"token_budget": BUDGETS[asked]} if asked in BUDGETS else {}
    return {"thinking": {"type": "enabled", **budget}}
