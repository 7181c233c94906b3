"""OpenAI's Responses, listened to: what an upstream that speaks them says, in the neutral form.

Sources: the official SDK's types of a response and of its stream's events; an error in a stream comes flat
(`{"type": "error", "message": …}`), nested, or as `response.failed`.
"""

from typing import Any, cast

import msgspec
from msgspec import Struct

from gateway.core.call import Attempt, Body
from gateway.core.errors import Unreachable
from gateway.core.reply import Chunk
from gateway.core.usage import NOTHING_ELSE, Extras, Usage
from gateway.providers.counting import count
from gateway.providers.failures import UNREADABLE
from gateway.providers.forward import heard
from gateway.providers.openai_errors import failure_of
from gateway.providers.openai_usage import stated_cost_nusd
from gateway.providers.vendors import Vendor
from gateway.wire.events import Began, Counted, Ended, Event, Finish, Refused, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.responses_kept import RUNNING, portable

ENDS = {"response.completed": "stop", "response.incomplete": "length"}
FINISHES: dict[str, Finish] = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""By `incomplete_details.reason`."""


class _Written(Struct):
    ttl_12h_tokens: int | None = None


class _Cached(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: _Written | None = None


class _Reasoned(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Reasoned | None = None
    cost: Any = None
    cost_in_usd_ticks: Any = None
    cost_details: Any = None
    is_byok: Any = None


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
    action: Any = None


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
    service_tier: Any = None


class _Event(Struct):
    type: str = ""
    response: _Response | None = None
    output_index: int = 0
    item: _Item | None = None
    delta: Any = None


_event = msgspec.json.Decoder(_Event).decode
_whole = msgspec.json.Decoder(_Response).decode


class ResponseDecoder:
    """Reads the events of one streamed response.

    Args:
        vendor: whose it is.
    """

    def __init__(self, vendor: Vendor) -> None:
        self.finished = False
        self._vendor = vendor
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
                return _ending(event.response, self._vendor)
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
CHARGED_APART = ("code_interpreter_call", "image_generation_call")
"""OpenAI's own tools that are charged for by what a response does not say: containers, and another model's tokens."""


def native_body(attempt: Attempt, *, keeps: bool) -> Body:
    """Return what to send to an upstream that speaks Responses: as it came, where it has what it builds on itself.

    One that keeps nothing (not `keeps`) is not told to: some refuse that.
    """
    turn = attempt.turn
    if turn is None:
        return attempt.body
    if turn.provider == attempt.deployment.provider:
        # Whatever else of it was changed on the way, such as a parameter that the model does not take, stays so.
        came = {name: raw for name in ("input", "previous_response_id") if (raw := turn.body.fields.get(name))}
        return Body(turn.body.raw, {**attempt.body.fields, **came})
    body = portable(attempt.body) if turn.builds else attempt.body
    return body if keeps else Body(body.raw, {name: raw for name, raw in body.fields.items() if name != "store"})


def used_in(response: bytes, vendor: Vendor) -> Usage | None:
    """Return what a response used; `None`: it does not say."""
    said = _whole(response)
    return None if said.usage is None else _used(said.usage, said, vendor)


def whole_response(body: bytes, vendor: Vendor) -> Chunk:
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
    return heard(body, [*events, *_ending(said, vendor)])


def _ending(response: _Response, vendor: Vendor) -> list[Event]:
    reason = response.incomplete_details.reason if response.incomplete_details else None
    called = any(item.type in CALLS for item in response.output)
    finish = FINISHES.get(reason or "", "length") if response.status == "incomplete" else "stop"
    ended: list[Event] = [Ended("tool_calls" if called and finish == "stop" else finish)]
    if response.usage is None:
        return [*ended, Counted(Usage(0, 0))] if response.status in RUNNING else ended  # nothing was used so far
    return [*ended, Counted(_used(response.usage, response, vendor))]


def _used(said: _Usage, response: _Response, vendor: Vendor) -> Usage:
    sent, reasoned = said.input_tokens_details or _Cached(), said.output_tokens_details or _Reasoned()
    prompt, completion = count(said.input_tokens), count(said.output_tokens)
    cached = min(count(sent.cached_tokens), prompt)
    half_day = count(sent.cache_write_tokens_details and sent.cache_write_tokens_details.ttl_12h_tokens)
    stated = {name: value for name in STATED if (value := getattr(said, name)) is not None}
    return Usage(
        prompt,
        completion,
        cached_tokens=cached,
        cache_write_tokens=min(count(sent.cache_write_tokens), prompt - cached),
        reasoning_tokens=min(count(reasoned.reasoning_tokens), completion),
        stated_cost_nusd=stated_cost_nusd(stated, vendor) if stated else None,
        service_tier=vendor.tier(response.service_tier),
        extras=_extras(response.output, half_day),
    )


STATED = ("cost", "cost_in_usd_ticks", "cost_details", "is_byok")


def _extras(output: list[_Item], half_day: int) -> Extras:
    """Return what the upstream's own tools did. Opening a page that a search found is no search."""
    searches = sum(item.type == "web_search_call" and _searched(item.action) for item in output)
    files = sum(item.type == "file_search_call" for item in output)
    others = sum(item.type in CHARGED_APART for item in output)
    if not (half_day or searches or files or others):
        return NOTHING_ELSE
    return Extras(cache_write_12h_tokens=half_day, searches=searches, file_searches=files, other_tools=others)


def _searched(action: Any) -> bool:
    return not isinstance(action, dict) or cast("dict[str, Any]", action).get("type", "search") == "search"


def _error(data: bytes) -> bytes:
    """Return OpenAI's error object, wherever a response or an event has it."""
    said: dict[str, Any] = msgspec.json.decode(data)
    response: dict[str, Any] = said.get("response") or {}
    nested = response.get("error") or said.get("error")
    return msgspec.json.encode({"error": nested if isinstance(nested, dict) else said})
