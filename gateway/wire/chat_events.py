"""Chat completions, as we send them, read into the neutral form: what other client surfaces are written from.

An upstream that speaks OpenAI's dialect is mended first, so that what is read here is always right: one role, tool
calls numbered without gaps, ids and names said once.
"""

from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from gateway.core.reply import Chunk
from gateway.wire import sse
from gateway.wire.events import (
    Began,
    Cited,
    Counted,
    Ended,
    Event,
    Finish,
    Refused,
    Said,
    Thought,
    ToolArgued,
    ToolBegan,
)

FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _Call(Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None
    custom: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Block(Struct):
    type: str = ""
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Source(Struct):
    url: str = ""
    title: str = ""


class _Annotation(Struct):
    type: str = ""
    url_citation: _Source | None = None


class _Message(Struct):
    """A message, or a delta of one."""

    content: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[_Block] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    annotations: list[_Annotation] | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Said(Struct):
    id: str = ""
    model: str = ""
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Said).decode


class ChatDecoder:
    """Reads the chunks of one answer, streamed or whole. Of several choices the first is heard."""

    def __init__(self) -> None:
        self._begun = False

    def feed(self, chunk: Chunk) -> list[Event]:
        """Return what a chunk says."""
        events: list[Event] = []
        if chunk.data.startswith(b"{"):
            events += self._said(_decode(chunk.data), "message")
        else:
            for event in sse.Splitter().feed(chunk.data):
                events += self._said(_decode(event.data), "delta")
        if chunk.usage is not None:
            events.append(Counted(chunk.usage))
        return events

    def _said(self, said: _Said, where: Literal["message", "delta"]) -> list[Event]:
        events: list[Event] = []
        if not self._begun:
            self._begun = True
            events.append(Began(said.id, said.model))
        for choice in said.choices:
            message: _Message | None = getattr(choice, where)
            if choice.index != 0:
                continue
            if message is not None:
                events += _events_of(message, whole=where == "message")
            if choice.finish_reason:
                events.append(Ended(FINISHES.get(choice.finish_reason, "stop")))
        return events


def _events_of(message: _Message, *, whole: bool) -> list[Event]:
    events = _thoughts(message, whole=whole)
    if message.content:
        events.append(Said(message.content))
    if message.refusal:
        events.append(Refused(message.refusal))
    for number, call in enumerate(message.tool_calls or ()):
        events += _tool(call, number if whole else call.index)
    for annotation in message.annotations or ():
        if annotation.url_citation is not None:
            events.append(Cited(annotation.url_citation.url, annotation.url_citation.title))
    return events


def _thoughts(message: _Message, *, whole: bool) -> list[Event]:
    """Return the reasoning. A whole answer says it twice, where it is signed: as text, and as blocks that hold it."""
    blocks = message.thinking_blocks or []
    events: list[Event] = []
    if message.reasoning_content and not (whole and blocks):
        events.append(Thought(message.reasoning_content))
    for block in blocks:
        if block.type == "redacted_thinking":
            events.append(Thought(redacted=block.data or ""))
        else:
            text = (block.thinking or "") if whole else ""
            events.append(Thought(text, signature=block.signature or ""))
    return events


def _tool(call: _Call, index: int) -> list[Event]:
    function = call.function or call.custom or _Function()
    events: list[Event] = []
    if call.id:
        google = cast("dict[str, Any]", (call.extra_content or {}).get("google") or {})
        events.append(ToolBegan(index, call.id, function.name or "", str(google.get("thought_signature") or "")))
    if fragment := function.arguments or function.input:
        events.append(ToolArgued(index, fragment))
    return events
