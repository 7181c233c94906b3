"""Writes a request of OpenAI's Responses API as a chat completion request, the form from which all others are written.

What is `REFUSED` and what is `LEFT_OUT` is said below, tools apart (`responses_tools`). A field that the API does not
have passes as it came: vendors take parameters of their own. Of what is translated,

- `instructions`, system and developer messages become system messages, neighbours one;
- reasoning, an assistant's text and the calls that stand together become one assistant message;
- pictures and files that a tool returned follow in a user's message, for a tool's own holds text only;
- `allowed_tools` leaves the others away; `reasoning.summary` and `context` are wishes, and lost;
- reasoning comes back from our own `encrypted_content`; of another's, which cannot be read, the summary remains.

Sources: the official SDK's types; platform.openai.com/docs, "Migrate to the Responses API".
"""

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.wire.chat_request import JSONSchema, decoded
from gateway.wire.openai import encode
from gateway.wire.responses_messages import Conversation
from gateway.wire.responses_tools import Json, converted, read_tools, refuse, tool_fields

REFUSED = {
    "access_programs": "leave it out",
    "background": "ask without it, and read the answer as a stream",
    "context_management": "shorten the input yourself",
    "conversation": "send its items in `input`",
    "moderation": "ask a moderation model first",
    "prompt": "send its text as `instructions`",
}
"""Fields that cannot be honoured, and what to do instead. `false`, `null` and empty ones ask for nothing."""

LEFT_OUT = {
    "client_metadata": "what Codex tells OpenAI about itself",
    "image": "how OpenAI keeps images in its cache",
    "include": "the encrypted reasoning, which the answer's writer adds; all else is of tools that are not there",
    "max_tool_calls": "a limit on tools that OpenAI runs",
    "metadata": "kept with the response, which says it",
    "previous_response_id": "what it names was found, and is sent in its place",
    "prompt_cache_key": "where OpenAI looks for its cache",
    "prompt_cache_options": "how OpenAI caches",
    "prompt_cache_retention": "how long OpenAI caches",
    "store": "of the response, not of the chat completion",
    "stream_options": "padding, of which there is none here",
    "truncation": "a prompt that is too long is an error, and never cut",
}
"""Fields that an upstream is not told, and what they are about."""

LOGPROBS = "message.output_text.logprobs"

Item = dict[str, Any]
"""One thing of a conversation, as the API writes it: a message, a call, a result, a piece of reasoning."""


class _Reasoning(Struct):
    effort: str | None = None
    mode: str | None = None


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]


class _Text(Struct):
    format: Json | None = None
    verbosity: str | None = None


class _Request(Struct):
    input: str | list[Item]
    instructions: str | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    reasoning: _Reasoning | None = None
    text: _Text | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None


_TRANSLATED = frozenset(_Request.__struct_fields__)

_request = msgspec.json.Decoder(_Request)
_object = msgspec.json.Decoder(dict[str, Raw])


def chat_body(body: Body) -> Body:
    """Return the body of a chat completion request that asks for the same.

    Args:
        body: of `POST /v1/responses`.

    Raises:
        BadRequest: it is no such request, or a chat completion cannot ask for it; `param` names the field.
    """
    request = _read(body.raw)
    _refuse_unspeakable(request, body)
    conversation = Conversation()
    if request.instructions:
        conversation.add({"role": "system", "content": request.instructions}, "instructions")
    if isinstance(request.input, str):
        conversation.add({"role": "user", "content": request.input}, "input")
    else:
        for number, item in enumerate(request.input):
            conversation.add(item, f"input[{number}]")
    messages = conversation.messages()
    if not messages:
        raise BadRequest("there is nothing in `input` to answer", param="input", code="invalid_value")
    said: Json = {name: raw for name, raw in body.fields.items() if not _is_ours(name)}
    said["messages"] = messages
    said |= tool_fields(read_tools(request.tools or []), request.tool_choice, request.parallel_tool_calls)
    said |= _output(request)
    raw = encode(said)
    return Body(raw, _object.decode(raw))


def _read(raw: bytes) -> _Request:
    return decoded(_request, raw)


def _is_ours(name: str) -> bool:
    return name in _TRANSLATED or name in LEFT_OUT or name in REFUSED


def _refuse_unspeakable(request: _Request, body: Body) -> None:
    for name, cure in REFUSED.items():
        if body.get(name):
            refuse(f"{name} is not known where this model is served; {cure}", name)
    if request.top_logprobs or LOGPROBS in (request.include or ()):
        refuse("log probabilities are not translated", "top_logprobs" if request.top_logprobs else "include")
    if request.reasoning is not None and request.reasoning.mode not in (None, "standard"):
        refuse(f'reasoning.mode "{request.reasoning.mode}" is OpenAI\'s own; leave it out', "reasoning.mode")


def _output(request: _Request) -> Json:
    """Return how the answer is to be: its length, effort, form and verbosity."""
    text = request.text or _Text()
    said: Json = {
        "max_completion_tokens": request.max_output_tokens,
        "reasoning_effort": None if request.reasoning is None else request.reasoning.effort,
        "response_format": None if text.format is None else _format(text.format),
        "verbosity": text.verbosity,
    }
    return {name: value for name, value in said.items() if value is not None}


def _format(form: Json) -> Json | None:
    kind = converted(form, _Format, "text.format").type
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": kind}
    schema = msgspec.structs.asdict(converted(form, JSONSchema, "text.format"))
    return {"type": kind, "json_schema": {name: value for name, value in schema.items() if value is not None}}
