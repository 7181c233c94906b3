"""Writes a chat completion request as a request of Ollama's own `/api/chat`.

Translated: everything that the API can say. Its own fields (`OWN`), its `options`, and those of them that people write
outside of these (`OPTIONS`) go on as they came and beat what is made of OpenAI's. Left out, for they are wishes and not
demands: `user`, `metadata`, `service_tier`, `prediction`, `verbosity`, `store`, `detail` of images, `strict` of tools,
`parallel_tool_calls`, `name`, and where in a message its pictures stand. Refused, naming the field: `n` over 1, log
probabilities, `logit_bias`, audio, web search, files, pictures by address (Ollama fetches none), a `tool_choice` that
forces a tool, tools other than functions.

What does not fit into the context is an error: by itself Ollama would drop the beginning of the conversation, and while
it answers too, without a word. Sources: docs.ollama.com/api/chat, "Thinking", "Tool calling"; its `api/types.go`.
"""

from typing import Any

import msgspec

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.providers import chat
from gateway.wire.chat_request import ChatRequest, Message, ToolCall

Piece = dict[str, Any]

OWN = ("format", "keep_alive", "shift", "think", "truncate")
"""Fields that only Ollama has, beside `options`."""

OPTIONS = (
    *("min_p", "mirostat", "mirostat_eta", "mirostat_tau", "num_ctx", "num_keep", "num_predict"),
    *("repeat_last_n", "repeat_penalty", "tfs_z", "typical_p"),
)
"""Ollama's options that a client may write without `options` around them; none of OpenAI's has their name."""

NOTHING_DROPPED = {"truncate": False, "shift": False}
"""Older versions do not know these and drop what does not fit."""

LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
LEVELLED = "gpt-oss"
"""Models of this name are told a level of thinking and cannot do without; all others only whether to think."""


def chat_body(
    request: ChatRequest, body: Body, model: str, stream: bool, defaults: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the body of `/api/chat`.

    Args:
        request: what the client asks for, and
        body: the same as it came.
        model: as Ollama calls it.
        stream: answer in pieces.
        defaults: options to use where the client says no other.

    Raises:
        BadRequest: Ollama has no way to say this.
    """
    chat.refuse_unspeakable(request, body, "Ollama")
    if not request.messages:
        raise BadRequest("Ollama needs a message; without, it only loads the model", param="messages")
    said: dict[str, Any] = {"model": model, "messages": _messages(request), "stream": stream, **NOTHING_DROPPED}
    said |= _tools(request) | _form(request) | _thinking(request, model)
    said |= {name: body.fields[name] for name in OWN if name in body.fields}
    if options := {**(defaults or {}), **_sampling(request), **own_options(body)}:
        said["options"] = options
    return said


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _messages(request: ChatRequest) -> list[Piece]:
    messages: list[Piece] = []
    names: dict[str, str] = {}
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        match message.role:
            case "system" | "developer":
                messages.append({"role": "system", "content": chat.text_of(message, where)})
            case "user":
                messages.append({"role": "user", **_content(message, where)})
            case "assistant":
                messages.append(_assistant(message, names, where))
            case "tool":
                messages.append(_result(message, names, where))
            case "function":
                chat.refuse('messages of the role "function" are not translated; use tools', f"{where}.role")
    return messages


def _content(message: Message, where: str) -> Piece:
    text, images = "", list[str]()
    for number, part in enumerate(chat.parts(message)):
        at = f"{where}.content[{number}]"
        if part.type == "text":
            text += part.text or ""
        elif part.type == "image_url" and part.image_url is not None:
            if part.image_url.url.startswith(("https://", "http://")):
                chat.refuse("Ollama fetches no pictures; send it as a data: URL", f"{at}.image_url.url")
            images.append(chat.data_url(part.image_url.url, f"{at}.image_url.url").base64)
        else:
            chat.refuse(f'a part of type "{part.type}" cannot be sent to Ollama', at)
    return {"content": text, "images": images} if images else {"content": text}


def _assistant(message: Message, names: dict[str, str], where: str) -> Piece:
    said: Piece = {"role": "assistant", "content": chat.text_of(message, where) + (message.refusal or "")}
    if thought := chat.thoughts_of(message):
        said["thinking"] = thought
    if message.tool_calls:
        calls = [(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(message.tool_calls)]
        said["tool_calls"] = [_call(call, names, at) for call, at in calls]
    return said


def _call(call: ToolCall, names: dict[str, str], where: str) -> Piece:
    given = chat.arguments(call, where)
    assert call.function is not None
    names[call.id] = call.function.name
    return {"id": call.id, "function": {"name": call.function.name, "arguments": given}}


def _result(message: Message, names: dict[str, str], where: str) -> Piece:
    called = message.tool_call_id or ""
    name = names.get(called) or message.name
    if not name:
        raise BadRequest(
            f'no tool call with the id "{called}" stands before this result', param=f"{where}.tool_call_id"
        )
    return {"role": "tool", "tool_name": name, "tool_call_id": called, "content": chat.text_of(message, where)}


# ── Tools, thinking, options ─────────────────────────────────────────────────────────────────────────────────────


def _tools(request: ChatRequest) -> dict[str, Any]:
    functions = [chat.function_of(tool, number) for number, tool in enumerate(request.tools or [])]
    kind, _ = chat.chosen_tool(request)
    if not functions or kind == "none":
        return {}
    if kind in ("required", "named"):
        chat.refuse("Ollama cannot be made to call a tool; leave tool_choice out", "tool_choice")
    tools: list[Piece] = []
    for function in functions:
        described = {"description": function.description} if function.description else {}
        schema = function.parameters or {"type": "object", "properties": {}}
        tools.append({"type": "function", "function": {"name": function.name, **described, "parameters": schema}})
    return {"tools": tools}


def _form(request: ChatRequest) -> dict[str, Any]:
    form = request.response_format
    if form is None or form.type == "text":
        return {}
    schema = chat.schema_of(form)
    return {"format": "json" if schema is None else schema}


def _thinking(request: ChatRequest, model: str) -> dict[str, Any]:
    asked = chat.effort(request)
    if asked is None:
        return {}
    if LEVELLED not in model:
        return {"think": asked != "none"}
    if asked == "none":
        chat.refuse(f"{model} always thinks; the least reasoning_effort is low", "reasoning_effort")
    return {"think": LEVELS[asked]}


def _sampling(request: ChatRequest) -> dict[str, Any]:
    said: dict[str, Any] = {
        "num_predict": request.most_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop": request.stops or None,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    return {name: value for name, value in said.items() if value is not None}


def own_options(body: Body) -> dict[str, Any]:
    """Return the client's options in Ollama's own words.

    Raises:
        BadRequest: `options` are no object.
    """
    try:
        options: dict[str, Any] = body.get("options", dict[str, Any] | None) or {}
    except msgspec.ValidationError:
        raise BadRequest("options: expected an object", param="options", code="invalid_type") from None
    return {**{name: body.fields[name] for name in OPTIONS if name in body.fields}, **options}
