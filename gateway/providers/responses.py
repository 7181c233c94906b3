"""OpenAI's Responses, listened to: what an upstream that speaks them says, in the neutral form.

Sources: the official SDK's types of a response and of its stream's events; an error in a stream comes flat
(`{"type": "error", "message": …}`), nested, or as `response.failed`.
"""

from typing import Any

import msgspec
from msgspec import Struct

from gateway.core.errors import Unreachable
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.failures import UNREADABLE
from gateway.providers.forward import heard
from gateway.providers.openai_errors import failure_of
from gateway.wire.events import Began, Counted, Ended, Event, Finish, Refused, Said, Thought, ToolArgued, ToolBegan

ENDS = {"response.completed": "stop", "response.incomplete": "length"}
FINISHES: dict[str, Finish] = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""By `incomplete_details.reason`."""


class _Cached(Struct):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class _Reasoned(Struct):
    reasoning_tokens: int = 0


class _Usage(Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Reasoned | None = None


class _Text(Struct):
    text: str | None = None
    refusal: str | None = None


class _Item(Struct):
    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    content: list[_Text] | None = None
    summary: list[_Text] | None = None


class _Why(Struct):
    reason: str | None = None


class _Response(Struct):
    id: str = ""
    model: str = ""
    object: str = ""
    status: str = ""
    error: Any = None
    incomplete_details: _Why | None = None
    output: list[_Item] = []
    usage: _Usage | None = None


class _Event(Struct):
    type: str = ""
    response: _Response | None = None
    output_index: int = 0
    item: _Item | None = None
    delta: Any = None


_event = msgspec.json.Decoder(_Event).decode
_whole = msgspec.json.Decoder(_Response).decode


class ResponseDecoder:
    """Reads the events of one streamed response."""

    def __init__(self) -> None:
        self.finished = False
        self._tools: dict[int, int] = {}
        """Our number of a tool call, by the place of its item."""

    @property
    def complete(self) -> bool:
        """Why the response ends was seen: its last event says it."""
        return self.finished

    def feed(self, data: bytes) -> list[Event]:
        """Return what the data of one event says; nothing for events of types yet unknown.

        Raises:
            UpstreamFailed: it is an error.
        """
        event = _event(data)
        match event.type:
            case "response.created" if event.response is not None:
                return [Began(event.response.id, event.response.model)]
            case "response.output_text.delta":
                return [Said(str(event.delta or ""))]
            case "response.refusal.delta":
                return [Refused(str(event.delta or ""))]
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return [Thought(str(event.delta or ""))]
            case "response.output_item.added" if event.item is not None and event.item.type in CALLS:
                return self._called(event.output_index, event.item)
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                index = self._tools.get(event.output_index)
                return [] if index is None else [ToolArgued(index, str(event.delta or ""))]
            case "response.completed" | "response.incomplete" if event.response is not None:
                self.finished = True
                return _ending(event.response)
            case "response.failed" | "error":
                raise failure_of(_error(data))
            case _:
                return []

    def end(self) -> list[Event]:
        """Return nothing: a response without its last event is cut."""
        return []

    def lose(self) -> None:
        """Go on: nothing is filled in here."""

    def _called(self, place: int, item: _Item) -> list[Event]:
        index = self._tools.setdefault(place, len(self._tools))
        return [ToolBegan(index, item.call_id or item.id or "", item.name or "")]


CALLS = ("function_call", "custom_tool_call")


def whole_response(body: bytes) -> Chunk:
    """Return a whole response as it came.

    Raises:
        UpstreamFailed: it is none, whatever its status said.
    """
    try:
        said = _whole(body)
    except UNREADABLE:
        said = _Response()
    if said.error or said.status == "failed":
        raise failure_of(_error(body))
    if said.object != "response":
        raise Unreachable("the upstream answered 200, but with no response")
    events: list[Event] = []
    for index, item in enumerate(said.output):
        events += [Said(part.text or "") for part in item.content or () if part.text]
        events += [Refused(part.refusal or "") for part in item.content or () if part.refusal]
        events += [Thought(part.text or "") for part in item.summary or ()]
        if item.type in CALLS:
            events += [ToolBegan(index, "", item.name or ""), ToolArgued(index, item.arguments or item.input or "")]
    return heard(body, [*events, *_ending(said)])


def _ending(response: _Response) -> list[Event]:
    reason = response.incomplete_details.reason if response.incomplete_details else None
    called = any(item.type in CALLS for item in response.output)
    finish = FINISHES.get(reason or "", "length") if response.status == "incomplete" else "stop"
    ended: list[Event] = [Ended("tool_calls" if called and finish == "stop" else finish)]
    return ended if response.usage is None else [*ended, Counted(_used(response.usage))]


def _used(said: _Usage) -> Usage:
    cached, reasoned = said.input_tokens_details or _Cached(), said.output_tokens_details or _Reasoned()
    return Usage(
        said.input_tokens,
        said.output_tokens,
        cached_tokens=cached.cached_tokens,
        cache_write_tokens=cached.cache_write_tokens,
        reasoning_tokens=reasoned.reasoning_tokens,
    )


def _error(data: bytes) -> bytes:
    """Return OpenAI's error object, wherever a response or an event has it."""
    said: dict[str, Any] = msgspec.json.decode(data)
    response: dict[str, Any] = said.get("response") or {}
    nested = response.get("error") or said.get("error")
    return msgspec.json.encode({"error": nested if isinstance(nested, dict) else said})
