"""What translators from the chat surface share: data URLs, tool calls, thinking, and refusing what cannot be said."""

import re
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.providers.failures import UNREADABLE
from gateway.wire.chat_request import ChatRequest, FunctionTool, Message, Part, ResponseFormat, Tool, ToolCall
from gateway.wire.events import Thought

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""OpenAI's `reasoning_effort`, least first."""


class Data(Struct, frozen=True):
    """What a `data:` URL holds; `base64` is not decoded."""

    media_type: str
    base64: str


def refuse(message: str, param: str) -> NoReturn:
    """Refuse what the upstream's dialect has no way to say.

    Raises:
        BadRequest: always.
    """
    raise BadRequest(message, param=param, code="unsupported_parameter")


def refuse_unspeakable(request: ChatRequest, body: Body, upstream: str) -> None:
    """Refuse what no translated upstream can be asked for through a chat completion.

    Raises:
        BadRequest: `param` names the field.
    """
    for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
        if old in body.fields:
            refuse(f"{old} is deprecated and not translated for {upstream}; use {new}", old)
    if request.n is not None and request.n != 1:
        refuse(f"{upstream} gives one answer a call; leave n out or ask {request.n} times", "n")
    if request.logprobs or request.top_logprobs:
        refuse(f"logprobs are not translated for {upstream}", "logprobs" if request.logprobs else "top_logprobs")
    if request.logit_bias:
        refuse(f"{upstream} has no logit_bias", "logit_bias")
    if request.audio is not None or "audio" in (request.modalities or ()):
        refuse(f"{upstream} answers in text only here", "audio" if request.audio is not None else "modalities")
    if request.web_search_options is not None:
        refuse(f"web search is not translated for {upstream}; give it a tool of yours", "web_search_options")
    if request.moderation is not None:
        refuse(f"{upstream} does not moderate; ask a moderation model first", "moderation")
    for number, message in enumerate(request.messages):
        if message.audio is not None:
            refuse("only OpenAI has the audio that it answered with; send its transcript", f"messages[{number}].audio")
        if message.function_call is not None:
            where = f"messages[{number}].function_call"
            refuse("function_call is deprecated and not translated; use tool_calls", where)


def effort(request: ChatRequest) -> str | None:
    """Return the asked `reasoning_effort`.

    Raises:
        BadRequest: it is none of `EFFORTS`.
    """
    asked = request.reasoning_effort
    if asked is not None and asked not in EFFORTS:
        message = f'reasoning_effort is one of {", ".join(EFFORTS)}; got "{asked}"'
        raise BadRequest(message, param="reasoning_effort", code="invalid_value")
    return asked


def parts(message: Message) -> list[Part]:
    """Return the content of `message` as parts; plain text is one part."""
    if isinstance(message.content, str):
        return [Part("text", text=message.content)]
    return message.content or []


def text_of(message: Message, where: str) -> str:
    """Return the content of a message that may hold text only, its parts joined.

    Raises:
        BadRequest: it holds something else.
    """
    for number, part in enumerate(parts(message)):
        if part.type not in ("text", "refusal"):
            refuse(f'a "{message.role}" message holds text only, got "{part.type}"', f"{where}.content[{number}]")
    return "".join(part.text or part.refusal or "" for part in parts(message))


def thoughts_of(message: Message) -> str:
    """Return the reasoning that came back with a turn, under whichever of its names, without signatures."""
    blocks = [block.get("thinking") for block in message.thinking_blocks or []]
    return message.reasoning_content or "".join(text for text in blocks if isinstance(text, str))


def schema_of(form: ResponseFormat) -> dict[str, Any] | None:
    """Return the schema that an answer in JSON must match; `None`: any object will do.

    Raises:
        BadRequest: it is another format, or lacks its schema.
    """
    if form.type == "json_object":
        return None
    if form.type != "json_schema" or form.json_schema is None or form.json_schema.schema is None:
        raise BadRequest("response_format is text, json_object, or json_schema with a schema", param="response_format")
    return form.json_schema.schema


def data_url(url: str, where: str) -> Data:
    """Read a `data:` URL.

    Raises:
        BadRequest: it is none, or not base64.
    """
    match = re.match(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,", url)
    if match is None:
        raise BadRequest("expected a URL like data:image/png;base64,…", param=where, code="invalid_value")
    return Data(match[1].lower(), url[match.end() :])


def thoughts(message: Message) -> list[Thought]:
    """Return the thinking of Claude's that came back: signed and redacted blocks only, for it is verified.

    A streamed block's text travels as `reasoning_content` and its signature alone in the block; they are joined here.
    """
    found: list[Thought] = []
    for block in message.thinking_blocks or []:
        if block.get("type") == "thinking" and block.get("signature"):
            found.append(Thought(str(block.get("thinking") or ""), signature=str(block["signature"])))
        elif block.get("type") == "redacted_thinking" and block.get("data"):
            found.append(Thought(redacted=str(block["data"])))
    signed = [at for at, thought in enumerate(found) if thought.signature]
    if len(signed) == 1 and not found[signed[0]].text and message.reasoning_content:
        found[signed[0]] = Thought(message.reasoning_content, signature=found[signed[0]].signature)
    return found


def call_id(said: str, where: str) -> str:
    """Return a tool call's id in the letters that Claude takes, the same for the call and its result.

    Raises:
        BadRequest: there is none.
    """
    if not said:
        raise BadRequest("a tool call and its result need the same id", param=where, code="invalid_value")
    return re.sub(r"[^a-zA-Z0-9_-]", "_", said)


def arguments(call: ToolCall, where: str) -> dict[str, Any]:
    """Return the arguments of a tool call in the history as the object that they are; empty ones are `{}`.

    Raises:
        BadRequest: they are no JSON object, or it is no function that was called.
    """
    if call.function is None:
        refuse(f'only calls of functions are translated, got "{call.type}"', where)
    try:
        return msgspec.json.decode(call.function.arguments.strip() or "{}", type=dict[str, Any])
    except UNREADABLE:
        raise BadRequest(
            f"the arguments of {call.function.name} are not a JSON object",
            param=f"{where}.function.arguments",
            code="invalid_value",
        ) from None


def function_of(tool: Tool, number: int) -> FunctionTool:
    """Return the function that a tool is.

    Raises:
        BadRequest: it is another kind of tool.
    """
    if tool.function is None:
        refuse(f'only tools of type "function" are translated, got "{tool.type}"', f"tools[{number}]")
    return tool.function


def chosen_tool(request: ChatRequest) -> tuple[str, str]:
    """Return the `tool_choice` as `auto`, `none`, `required` or `named`, and the name; `("", "")`: not said.

    Raises:
        BadRequest: it is another kind of choice, or there is no tool to choose.
    """
    choice = request.tool_choice
    if choice is None:
        return "", ""
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            refuse(f'tool_choice is auto, none, required or a function, got "{choice}"', "tool_choice")
        kind, name = choice, ""
    elif choice.function is None:
        refuse(f'a tool_choice of type "{choice.type}" is not translated', "tool_choice")
    else:
        kind, name = "named", choice.function.name
    if not request.tools:
        if kind in ("required", "named"):
            refuse("tool_choice asks for a tool, but there are no tools", "tool_choice")
        return "", ""
    return kind, name
